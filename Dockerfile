# syntax=docker/dockerfile:1
# docker build -t distorchd:cpu .                              for the CPU (or simulated devices)
# docker build -t distorchd:cuda --build-arg VARIANT=cuda .    with CUDA; run it with --gpus all
# docker run --rm -p 50051:50051 -v /my/models:/models:ro --read-only --tmpfs /tmp distorchd:cpu
# docker buildx bake -f deploy/docker-bake.hcl builds both, with an SBOM attached; the image has its own in /usr/share/distorchd.
ARG VARIANT=cpu

FROM debian:bookworm-20260918@sha256:f37a335e82bca302e955fa39f9dfe28f1be618f016f8a2b56318e5a5111afc26 AS builder
ARG VARIANT
ENV DISTORCH_CACHE=/opt/distorchd DISTORCH_TORCH_VARIANT=$VARIANT
WORKDIR /src
# Packages and LibTorch first: a layer that stays while only sources change.
COPY deploy/lib.sh deploy/build.sh deploy/packages.txt deploy/
RUN bash deploy/build.sh --setup
COPY . .
RUN bash deploy/build.sh && bash deploy/bundle.sh /bundle

# CUDA's libraries are those of the LibTorch wheel, in the bundle; the driver's come from the container runtime.
FROM debian:bookworm-20260918-slim@sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251
LABEL org.opencontainers.image.title="distorchd" \
      org.opencontainers.image.description="Serves diffusion checkpoints over gRPC, their weights spread over devices" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder /bundle/ /
# hadolint ignore=DL3008
RUN --mount=type=bind,from=builder,source=/src/deploy/sbom.sh,target=/tmp/sbom.sh \
    apt-get update \
 && xargs apt-get install -y --no-install-recommends ca-certificates </usr/share/distorchd/packages.txt \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --home-dir /var/lib/distorchd --create-home --shell /usr/sbin/nologin distorchd \
 && mkdir -p /models/checkpoints /models/loras /models/embeddings /models/vae_approx \
 && bash /tmp/sbom.sh /usr/share/distorchd/wheels.txt >/usr/share/distorchd/sbom.cdx.json
# By number, so that Kubernetes sees that it is not root.
USER 10001:10001
WORKDIR /var/lib/distorchd
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
# Over HTTP, which asks neither for TLS nor for a token.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9464 && printf 'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["distorchd"]
