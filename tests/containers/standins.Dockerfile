# Stand-ins for images that cannot be pulled where the test runs: Debian's packages, with the
# entrypoint, folders and user that the real images have. Each target has one real image's name.
# hadolint global ignore=DL3008
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE} AS servers
# The packages' own start scripts are of no use in a container.
RUN printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d \
    && apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends \
        postgresql-15 redis-server prometheus prometheus-alertmanager wget > /dev/null \
    && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/15 /etc/prometheus/*
ENV PATH=/usr/lib/postgresql/15/bin:$PATH

FROM servers AS postgres
ENV PGDATA=/var/lib/postgresql/data
RUN install --directory --owner=postgres --group=postgres --mode=1777 "$PGDATA" \
    && chmod 3777 /var/run/postgresql
VOLUME /var/lib/postgresql/data
COPY standin-postgres.sh /usr/local/bin/docker-entrypoint.sh
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]

FROM servers AS redis
CMD ["redis-server"]

FROM servers AS prometheus
RUN install --directory --owner=nobody --group=nogroup /prometheus
USER 65534
WORKDIR /prometheus
ENTRYPOINT ["prometheus"]

FROM servers AS alertmanager
RUN install --directory --owner=nobody --group=nogroup /alertmanager
COPY standin-alertmanager.sh /usr/local/bin/alertmanager
USER 65534
WORKDIR /alertmanager
ENTRYPOINT ["alertmanager"]
