"""The few forms of panel that both dashboards use, so that they look alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="arb-prometheus")
"""The uid of deploy/grafana/provisioning/datasources/prometheus.yaml."""

LINES_HEIGHT = 8
TILE_HEIGHT = 4

Queries = Mapping[str, str]
"""Expression by legend; a legend may hold labels as ``{{venue}}``."""


def board(uid: str, title: str, about: str) -> dashboard.Dashboard:
    """Return an empty dashboard."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["arb_ray"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("utc")
        .readonly()
    )


def lines(
    title: str, queries: Queries, *, about: str, unit: str = "short", span: int = 8
) -> timeseries.Panel:
    """Return a panel of lines over time. ``span`` is its width; a dashboard has 24."""
    legend = common.VizLegendOptions().display_mode(common_models.LegendDisplayMode.LIST)
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(span)
        .height(LINES_HEIGHT)
        .line_width(1)
        .fill_opacity(8)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(legend.placement(common_models.LegendPlacement.BOTTOM).show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
    )
    for ref, (label, expression) in zip(_refs(), queries.items(), strict=False):
        panel.with_target(_query(ref, label, expression))
    return panel


def tile(
    title: str,
    expression: str,
    *,
    about: str,
    unit: str = "short",
    steps: Sequence[tuple[float | None, str]] = ((None, "green"),),
    words: Mapping[str, str] | None = None,
    span: int = 3,
) -> stat.Panel:
    """
    Return a tile with the value of now.

    ``steps`` colour it from a value on; ``words`` say what a code means.
    """
    panel = (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(span)
        .height(TILE_HEIGHT)
        .color_mode(common_models.BigValueColorMode.BACKGROUND)
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .no_value("no data")
        .thresholds(
            dashboard.ThresholdsConfig()
            .mode(models.ThresholdsMode.ABSOLUTE)
            .steps([models.Threshold(value=value, color=color) for value, color in steps])
        )
        .with_target(_query("A", "", expression))
    )
    if words:
        options = {code: models.ValueMappingResult(text=text) for code, text in words.items()}
        panel.mappings([models.ValueMap(options=options)])
    return panel


def add_row(
    target: dashboard.Dashboard, title: str, panels: Sequence[Builder[models.Panel]]
) -> None:
    """Add a titled row; the panels' widths are placed from left to right."""
    target.with_row(dashboard.Row(title))
    for panel in panels:
        target.with_panel(panel)


def _query(ref: str, label: str, expression: str) -> prometheus.Dataquery:
    query = prometheus.Dataquery().ref_id(ref).expr(expression).datasource(DATASOURCE)
    return query.legend_format(label) if label else query


def _refs() -> Sequence[str]:
    return [chr(ord("A") + index) for index in range(26)]
