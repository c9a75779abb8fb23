# Two stages: the first installs the locked requirements, the second has no compiler, no pip and no root.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/ringback
COPY requirements/server.txt requirements/server.txt
RUN /opt/ringback/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/server.txt
COPY pyproject.toml ./
COPY app app
COPY worker worker
COPY migrations migrations
RUN /opt/ringback/bin/pip install --no-cache-dir --disable-pip-version-check --no-build-isolation --no-deps . \
 && /opt/ringback/bin/python -m compileall -q /opt/ringback/lib \
 && /opt/ringback/bin/python -m pip uninstall --yes --quiet pip

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --home-dir /data ringback && install -d -o ringback -g ringback /data
COPY --from=build /opt/ringback /opt/ringback
ENV PATH=/opt/ringback/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RINGBACK_HOST=0.0.0.0 \
    RINGBACK_DATA_DIR=/data
USER ringback
WORKDIR /data
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["ringback"]
CMD ["serve"]
