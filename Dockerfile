# qprd on a server, without QuPath: projects are read through exchange files.
#
#   docker build -t qprd .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/project" -v qprd-weights:/weights qprd predict
#
# For NVIDIA GPUs (docker run --gpus all):
#
#   docker build -t qprd:cuda --build-arg BASE=nvidia/cuda:12.6.3-base-ubuntu24.04 \
#       --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
ARG BASE=ubuntu:24.04

FROM ${BASE}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# The version to write into the package: .git, which has the tag, is not copied.
ARG VERSION

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Which versions Ubuntu has at the time is what is wanted here.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/qprd

ENV PATH=/opt/qprd/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    # Downloaded weights of teachers: mount a volume here to keep them.
    TORCH_HOME=/weights/torch \
    HF_HOME=/weights/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib

# A layer of its own, as PyTorch is most of the image and changes least.
# hadolint ignore=DL3013
RUN pip install torch torchvision --index-url "${TORCH_INDEX}"

COPY . /src
# hadolint ignore=DL3013
RUN SETUPTOOLS_SCM_PRETEND_VERSION="${VERSION:-}" pip install "/src[timm,view]" \
    && useradd --create-home --uid 10001 qprd \
    && install --directory --mode=1777 /weights /project

USER 10001
WORKDIR /project
VOLUME ["/weights"]
ENTRYPOINT ["qprd"]
CMD ["--help"]
