# Not built in CI: no container engine runs there. Build and try it where you have one:
#   docker build -t quant-explorer .
#   mkdir -p runs && docker run --rm --user "$(id -u):$(id -g)" -e HOME=/tmp -v "$PWD/runs:/work/runs" quant-explorer pipeline
# Without the first, the engine would make `runs` as root, and without --user it would belong to another user.
#
# Two stages: the wheel is built in the first; the second installs it and holds no build tool.

FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /dist

FROM python:3.11-slim
# The CPU-only build of PyTorch, a tenth of the size of the default one.
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY --from=build /dist/*.whl /tmp/
RUN wheel=$(ls /tmp/*.whl) && pip install --no-cache-dir "${wheel}[mnist5k]" && rm /tmp/*.whl
RUN useradd --create-home explorer
USER explorer
WORKDIR /work
ENTRYPOINT ["quant-explorer"]
CMD ["--help"]
