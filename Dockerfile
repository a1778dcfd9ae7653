# One image for api, worker, beat and migrate; the stage `ops` adds Flower. compose.yaml says what each runs.
# PYTHON_IMAGE is any image with Python 3.11 or later, venv and pip.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
# --without-pip: what runs can install nothing. The pip of the image installs into it from outside.
RUN python3 -m venv --without-pip /opt/venv
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements.lock ./
# The secret is optional: certificates to trust, where the way to the package index needs others than pip's own.
RUN --mount=type=secret,id=pip_cert \
    if [ -s /run/secrets/pip_cert ]; then export PIP_CERT=/run/secrets/pip_cert; fi; \
    python3 -m pip --python /opt/venv/bin/python install --only-binary :all: --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY shared shared
COPY api api
COPY worker worker
COPY cli cli
RUN python3 -m pip --python /opt/venv/bin/python install --no-deps --no-build-isolation --no-index . && \
    python3 -m pip --python /opt/venv/bin/python check

FROM build AS build-ops
COPY requirements-ops.lock ./
RUN --mount=type=secret,id=pip_cert \
    if [ -s /run/secrets/pip_cert ]; then export PIP_CERT=/run/secrets/pip_cert; fi; \
    python3 -m pip --python /opt/venv/bin/python install --only-binary :all: --no-deps --require-hashes -r requirements-ops.lock && \
    python3 -m pip --python /opt/venv/bin/python check

FROM ${PYTHON_IMAGE} AS runtime
RUN echo 'registry:x:10001:10001:plugin registry:/tmp:/bin/false' >> /etc/passwd && echo 'registry:x:10001:' >> /etc/group
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /
USER 10001:10001
EXPOSE 8080
CMD ["plugin-registry", "--help"]

FROM runtime AS ops
COPY --from=build-ops /opt/venv /opt/venv
EXPOSE 5555

# Last, so that a build that names no stage makes this one.
FROM runtime
