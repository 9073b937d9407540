# The images of the project. `make images` builds them; docs/operations.md says how they are named and configured.
#   training       the pipeline's steps under KFP, and the command line
#   serving        the KServe transformer, the storage initialiser, jobs on a cluster: no torch, no vLLM
#   predictor-cpu  vLLM for machines without a GPU
ARG BASE_IMAGE=docker.io/library/python:3.11-slim

# Wheels that no index has, such as a CPU build of torch: --build-context wheels=FOLDER puts them here.
FROM scratch AS wheels

FROM ${BASE_IMAGE} AS builder
ARG UV_VERSION=0.13.9
# Bytecode that is current by a hash, not by the time of its source, holds however layers are copied; a read-only root
# could not write it anew.
ENV UV_COMPILE_BYTECODE=1 PYC_INVALIDATION_MODE=UNCHECKED_HASH \
    UV_CACHE_DIR=/cache/uv UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_PYTHON=/opt/venv/bin/python \
    PIP_CACHE_DIR=/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    PATH=/build/tools/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# What reaches the package index (addresses, credentials, proxies, a certificate authority) is known while a command
# runs and kept nowhere.
RUN mkdir -p /build \
    && printf '%s\n' \
        'set -ea' \
        'if [ -f /run/secrets/network ]; then . /run/secrets/network; fi' \
        'if [ -f /run/secrets/certificates ]; then' \
        '    SSL_CERT_FILE=/run/secrets/certificates PIP_CERT=/run/secrets/certificates' \
        'fi' \
        'set +a' > /build/network \
    # Without a compiler headers are of no use.
    && printf '%s\n' \
        'set -e' \
        'find /opt/venv/lib -type d -name tests -prune -exec rm -r {} +' \
        'rm -rf /opt/venv/lib/python3*/site-packages/torch/include /opt/venv/lib/python3*/site-packages/pyarrow/include' \
        'echo /opt/conf-profile > "$(echo /opt/venv/lib/python3*/site-packages)/conf-profile.pth"' > /build/finish
# Groups of packages and where they depart from what packages ask for; pins and hashes.
COPY pyproject.toml requirements.lock install.sh /build/
RUN --mount=type=secret,id=network --mount=type=secret,id=certificates --mount=type=cache,target=/cache \
    . /build/network \
    && python3 -m pip install --quiet --target /build/tools "uv==${UV_VERSION}" \
    && python3 -m venv --without-pip /opt/venv \
    && cd /build && uv pip install --target /build/tools --constraint requirements.lock setuptools

# A folder of its own, beside the packages: a change of the sources is a layer of a few megabytes.
FROM builder AS project
WORKDIR /build/project
COPY pyproject.toml LICENSE ./
COPY components components
COPY conf_profile conf_profile
COPY configs configs
COPY feature_repo feature_repo
COPY pipelines pipelines
COPY serving serving
RUN touch README.md \
    && PYTHONPATH=/build/tools python3 -m pip wheel --quiet --no-deps --no-build-isolation --no-cache-dir \
        --wheel-dir /build/dist . \
    && uv pip install --offline --no-deps --target /opt/conf-profile /build/dist/*.whl

FROM builder AS serving-packages
RUN --mount=type=secret,id=network --mount=type=secret,id=certificates --mount=type=cache,target=/cache \
    . /build/network \
    && cd /build \
    && uv pip install --require-hashes --constraint requirements.lock --group image-serving \
    && sh /build/finish

FROM builder AS training-packages
ARG TORCH_INDEX=
ARG TRAINING_PACKAGES=
RUN --mount=type=secret,id=network --mount=type=secret,id=certificates --mount=type=cache,target=/cache \
    --mount=type=bind,from=wheels,target=/wheels \
    . /build/network \
    && export UV_FIND_LINKS=/wheels \
    && cd /build \
    && TORCH_INDEX="${TORCH_INDEX}" WITH_TORCH="${TRAINING_PACKAGES}" sh install.sh --group image-training \
    && sh /build/finish

FROM builder AS predictor-packages
ARG TORCH_INDEX=
RUN --mount=type=secret,id=network --mount=type=secret,id=certificates --mount=type=cache,target=/cache \
    --mount=type=bind,from=wheels,target=/wheels \
    . /build/network \
    && export UV_FIND_LINKS=/wheels \
    && cd /build \
    # PyTorch for CUDA brings the Triton that it was built with, and PyPI's has no CPU backend.
    && TORCH_INDEX="${TORCH_INDEX}" WITHOUT=triton sh install.sh --group image-predictor \
    && sh /build/finish

# The root may be read-only and the user any number: what is written goes to /tmp, and whoever asks for the user's name
# (torch does) finds one.
FROM ${BASE_IMAGE} AS runtime
ENV PATH=/opt/conf-profile/bin:/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp USER=conf-profile LOGNAME=conf-profile \
    XDG_CACHE_HOME=/tmp/.cache XDG_CONFIG_HOME=/tmp/.config HF_HOME=/tmp/.cache/huggingface \
    MPLCONFIGDIR=/tmp/.config/matplotlib TORCHINDUCTOR_CACHE_DIR=/tmp/.cache/torchinductor \
    TRITON_CACHE_DIR=/tmp/.cache/triton NUMBA_CACHE_DIR=/tmp/.cache/numba \
    HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 VLLM_NO_USAGE_STATS=1
WORKDIR /
USER 65532:65532

FROM runtime AS training
COPY --from=training-packages /opt/venv /opt/venv
COPY --from=project /opt/conf-profile /opt/conf-profile
# What the driver of a GPU's node lends to a container.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
CMD ["conf-profile", "--help"]
ARG BASE_IMAGE
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="conf-profile/training" \
    org.opencontainers.image.description="Pipeline steps and command line of Conf-Profile" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.base.name="${BASE_IMAGE}" \
    org.opencontainers.image.licenses="Apache-2.0"

FROM runtime AS serving
COPY --from=serving-packages /opt/venv /opt/venv
COPY --from=project /opt/conf-profile /opt/conf-profile
ENTRYPOINT ["python", "-m", "serving"]
ARG BASE_IMAGE
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="conf-profile/serving" \
    org.opencontainers.image.description="KServe transformer, storage initialiser and cluster jobs of Conf-Profile" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.base.name="${BASE_IMAGE}" \
    org.opencontainers.image.licenses="Apache-2.0"

FROM runtime AS predictor-cpu
USER 0
RUN --mount=type=secret,id=network --mount=type=secret,id=certificates \
    --mount=type=bind,from=builder,source=/build,target=/build \
    . /build/network \
    && apt-get update -qq \
    && apt-get install -qq -y --no-install-recommends libnuma1 > /dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/log/apt /var/log/dpkg.log
USER 65532:65532
COPY --from=predictor-packages /opt/venv /opt/venv
COPY --from=project /opt/conf-profile /opt/conf-profile
ENTRYPOINT ["python", "-m", "vllm.entrypoints.openai.api_server"]
ARG BASE_IMAGE
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="conf-profile/predictor-cpu" \
    org.opencontainers.image.description="vLLM on a CPU, with the arguments that Conf-Profile gives it" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.base.name="${BASE_IMAGE}" \
    org.opencontainers.image.licenses="Apache-2.0"
