# One image for every node of a cluster and for the commands: Python, Ray, arb_ray, nothing else.
# docs/DEPLOYMENT_GUIDE.md tells how it is built, and by which variables.
#
# No `# syntax=` line: the builder's own frontend knows all that is used here, and an image that
# needs no second image to be built can be built where nothing can be pulled.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# --- build: the wheel of arb_ray, and a venv with what it needs --------------------------------
FROM ${PYTHON_IMAGE} AS build

# Where packages come from is the builder's business: a pip.conf, and the certificates that it
# may name (cert = /run/secrets/pip_ca), are secrets of the build and enter no layer. Without
# them pip does what it does everywhere.
ENV PIP_CONFIG_FILE=/run/secrets/pip_conf \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_INPUT=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /src

# pip and the build backend live in a venv of their own, so that the image has neither.
COPY requirements/image.txt requirements/debian12.txt requirements/build.txt requirements/
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=pip_ca \
    python3 -m venv /opt/build \
    && /opt/build/bin/pip install --quiet --require-hashes --requirement requirements/build.txt \
    && python3 -m venv --without-pip /opt/arb \
    && /opt/build/bin/pip --python /opt/arb/bin/python install --quiet --require-hashes \
        --requirement requirements/image.txt --requirement requirements/debian12.txt

# config/ and migrations/ are put into the wheel by pyproject.toml.
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY migrations migrations
COPY arb_ray arb_ray
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir /dist . \
    && /opt/build/bin/pip --python /opt/arb/bin/python install --quiet --no-deps --no-index \
        /dist/*.whl

# --- runtime -------------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS runtime

# Debian keeps no old versions on its mirrors, so a pinned one would stop the build at the next
# security update.
# hadolint ignore=DL3008
RUN apt-get update -qq \
    && apt-get install -qq --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/cache/debconf/*-old

# A fixed number, so that files on volumes keep their owner from one image to the next. Volumes
# take the owner of the folder that they are mounted over.
RUN groupadd --gid 10001 arb \
    && useradd --uid 10001 --gid arb --home-dir /home/arb --create-home \
        --shell /usr/sbin/nologin arb \
    && install --directory --owner=arb --group=arb --mode=0750 /var/lib/arb /tmp/ray

COPY deploy/containers/ray-node-health.py /usr/local/bin/ray-node-health
COPY --from=build /opt/arb /opt/arb

# The image may run on a file system that is read-only, and its log is read as it is written.
ENV PATH=/opt/arb/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 \
    RAY_DEDUP_LOGS=0

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="arb_ray" \
      org.opencontainers.image.description="Cross-exchange arbitrage on paper, on Ray" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

USER 10001:10001
WORKDIR /var/lib/arb

# Ray leaves children behind when a node ends; tini reaps them and passes signals to the group.
# -s: where the engine's own init is process 1 (init: true), tini is asked to reap all the same.
ENTRYPOINT ["/usr/bin/tini", "-s", "-g", "--"]
CMD ["arb-ray", "--help"]

HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 CMD ["ray-node-health"]
