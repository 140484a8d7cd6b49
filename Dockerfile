# syntax=docker/dockerfile:1
# docker build -t distorchd .                                for the CPU (or simulated devices)
# docker build -t distorchd --build-arg VARIANT=cuda .       with CUDA; run it with --gpus all
# docker run --rm -p 50051:50051 -v /my/models:/models:ro distorchd
ARG VARIANT=cpu

FROM debian:12 AS builder
ARG VARIANT
ENV DISTORCH_CACHE=/opt/distorchd DISTORCH_TORCH_VARIANT=$VARIANT
WORKDIR /src
# Packages and LibTorch first: a layer that stays while only sources change.
COPY deploy/lib.sh deploy/build.sh deploy/packages.txt deploy/
RUN bash deploy/build.sh --setup
COPY . .
RUN bash deploy/build.sh && bash deploy/bundle.sh /bundle

FROM debian:12-slim
COPY --from=builder /bundle/ /
# hadolint ignore=DL3008
RUN apt-get update \
 && xargs apt-get install -y --no-install-recommends ca-certificates </usr/share/distorchd/packages.txt \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --home-dir /var/lib/distorchd --create-home --shell /usr/sbin/nologin distorchd \
 && mkdir -p /models/checkpoints /models/loras /models/embeddings /models/vae_approx
USER distorchd
# Flags given to `docker run` win over these. The container's own network is the boundary: publish the port to whom
# you trust, or turn TLS on.
ENV DISTORCHD_LISTEN_ADDRESS=0.0.0.0:50051 \
    DISTORCHD_ALLOW_INSECURE_LISTEN=true \
    DISTORCHD_METRICS_ADDRESS=0.0.0.0:9464 \
    DISTORCHD_CHECKPOINT_DIRS=/models/checkpoints \
    DISTORCHD_LORA_DIRS=/models/loras \
    DISTORCHD_EMBEDDING_DIRS=/models/embeddings \
    DISTORCHD_VAE_APPROX_DIRS=/models/vae_approx \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 50051 9464
VOLUME /models
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
  CMD ["distorchctl", "--address=127.0.0.1:50051", "--timeout=5", "devices"]
ENTRYPOINT ["distorchd"]
