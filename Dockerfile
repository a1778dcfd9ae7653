# One image for api, worker, beat and migrate; the stage `ops` adds Flower. compose.yaml says what each runs.
# PYTHON_IMAGE is any image with Python 3.11 or later, venv and pip. LOCK is what is installed: requirements.lock, or
# requirements-otel.lock, which has the exporter of traces too.
#
# What we depend on and what we wrote are two layers: a line that changes is a layer of the size of our code.
# What builds is in no image that runs, and neither is an installer.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS packages
ARG LOCK=requirements.lock
# The pip of the image installs into it from outside; our code, which comes later, is found beside it.
RUN python3 -m venv --without-pip /opt/venv && \
    echo /opt/registry > "$(/opt/venv/bin/python -c 'import site; print(site.getsitepackages()[0])')/registry.pth"
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY ${LOCK} ./
# The secret is optional: certificates to trust, where the way to the package index needs others than pip's own.
RUN --mount=type=secret,id=pip_cert \
    if [ -s /run/secrets/pip_cert ]; then export PIP_CERT=/run/secrets/pip_cert; fi; \
    python3 -m pip --python /opt/venv/bin/python install --only-binary :all: --no-deps --require-hashes -r ${LOCK}

FROM packages AS packages-ops
COPY requirements-ops.lock ./
RUN --mount=type=secret,id=pip_cert \
    if [ -s /run/secrets/pip_cert ]; then export PIP_CERT=/run/secrets/pip_cert; fi; \
    python3 -m pip --python /opt/venv/bin/python install --only-binary :all: --no-deps --require-hashes -r requirements-ops.lock && \
    python3 -m pip --python /opt/venv/bin/python check

FROM packages AS code
COPY requirements-build.lock ./
RUN --mount=type=secret,id=pip_cert \
    if [ -s /run/secrets/pip_cert ]; then export PIP_CERT=/run/secrets/pip_cert; fi; \
    python3 -m pip --python /opt/venv/bin/python install --only-binary :all: --no-deps --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY shared shared
COPY api api
COPY worker worker
COPY cli cli
COPY client client
RUN python3 -m pip --python /opt/venv/bin/python install --no-deps --no-build-isolation --no-index --target /opt/registry ./client . && \
    python3 -m pip --python /opt/venv/bin/python check

FROM ${PYTHON_IMAGE} AS runtime
RUN python3 -c 'import importlib.util as found, pathlib, shutil; \
    names = ("pip", "ensurepip", "setuptools", "wheel", "pkg_resources", "_distutils_hack"); \
    places = [pathlib.Path(place) for each in names if (spec := found.find_spec(each)) for place in spec.submodule_search_locations]; \
    places += [about for place in places for about in place.parent.glob(f"{place.name}-*-info")]; \
    places += pathlib.Path("/usr/share").glob("python-wheels"); \
    [shutil.rmtree(place) for place in places]; \
    [command.unlink() for folder in ("/usr/bin", "/usr/local/bin") for command in pathlib.Path(folder).glob("pip*")]' && \
    echo 'registry:x:10001:10001:plugin registry:/tmp:/bin/false' >> /etc/passwd && echo 'registry:x:10001:' >> /etc/group
COPY --from=packages /opt/venv /opt/venv
COPY --from=code /opt/registry /opt/registry
ENV PATH=/opt/registry/bin:/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /
USER 10001:10001
EXPOSE 8080
CMD ["plugin-registry", "--help"]
# https://specs.opencontainers.org/image-spec/annotations/. REVISION is the commit, BASE_DIGEST what PYTHON_IMAGE named on
# that day; empty, they are not known.
ARG PYTHON_IMAGE
ARG BASE_DIGEST=
ARG REVISION=
LABEL org.opencontainers.image.title="plugin-registry" \
      org.opencontainers.image.description="A registry of monitoring-agent plugins that lists nothing it has not downloaded and hashed itself" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}"

FROM runtime AS ops
COPY --from=packages-ops /opt/venv /opt/venv
EXPOSE 5555

# Last, so that a build that names no stage makes this one.
FROM runtime
