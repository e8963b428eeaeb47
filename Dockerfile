# Two images: `server` is Prefect alone, `worker` is the whole project. docker-compose.yml builds both.
# Both install what constraints.txt pins, as the tests do, and neither runs as root.
FROM python:3.11.14-slim-bookworm AS base
ENV PATH=/opt/absentia/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HOME=/tmp \
    PREFECT_HOME=/tmp/prefect \
    DO_NOT_TRACK=1
RUN groupadd --gid 1000 absentia \
    && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin absentia \
    && python -m venv /opt/absentia
WORKDIR /app
COPY constraints.txt ./

FROM base AS server
# FastAPI's bound stands in constraints.txt, too; it is named since Prefect's server fails on import without it.
RUN --mount=type=cache,target=/tmp/.cache/pip \
    pip install --constraint constraints.txt prefect asyncpg fastapi
USER absentia
EXPOSE 4200

FROM base AS worker
# Editable, as on a developer's machine: a flow runs in the folder that it was deployed from, which is this one.
COPY pyproject.toml README.md prefect.yaml ./
COPY examples examples
COPY manifests manifests
COPY shards shards
COPY miners miners
COPY student student
COPY flows flows
RUN --mount=type=cache,target=/tmp/.cache/pip \
    pip install --constraint constraints.txt --editable '.[dask,demo,export,s3]' \
    && python -m compileall -q examples flows manifests miners shards student \
    && mkdir demo /data \
    && chown absentia:absentia demo /data
USER absentia
