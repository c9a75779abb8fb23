# Two stages: the first installs the locked requirements, the second has no compiler, no pip and no root.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/ringback
COPY requirements/server.txt requirements/server.txt
RUN /opt/ringback/bin/pip install --no-cache-dir --no-compile --disable-pip-version-check --require-hashes \
      -r requirements/server.txt
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY worker worker
COPY migrations migrations
# Compiled modules that hold a hash and no time, so that two builds give the same files.
RUN /opt/ringback/bin/pip install --no-cache-dir --no-compile --disable-pip-version-check --no-build-isolation --no-deps . \
 && PYTHONDONTWRITEBYTECODE=1 /opt/ringback/bin/python -m pip uninstall --yes --quiet pip \
 && find /opt/ringback -name __pycache__ -prune -exec rm -r {} + \
 && /opt/ringback/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/ringback/lib

FROM ${PYTHON_IMAGE}
# A test holds the version to pyproject.toml's. REVISION: --build-arg REVISION=$(git rev-parse HEAD)
ARG VERSION=0.1.0
ARG REVISION=
# The day that a new user's password was changed is in /etc/shadow.
ARG SOURCE_DATE_EPOCH
LABEL org.opencontainers.image.title="Ringback" \
      org.opencontainers.image.description="A self-hosted server for the developer click-to-call API" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 ringback && useradd --uid 10001 --gid 10001 --no-log-init --home-dir /data ringback \
 && install -d -o ringback -g ringback /data
COPY --from=build /opt/ringback /opt/ringback
ENV PATH=/opt/ringback/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RINGBACK_HOST=0.0.0.0 \
    RINGBACK_METRICS_HOST=0.0.0.0 \
    RINGBACK_DATA_DIR=/data
# As numbers, because Kubernetes must see that this is not root.
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["ringback"]
CMD ["serve"]
