# syntax=docker/dockerfile:1
# The service in an image without a shell: the program, the C library and certificates, as an unprivileged user.
#
#   docker build -t fhir-tail .
#   docker run --read-only -v fhir-tail:/data -p 127.0.0.1:8080:8080 -e DATABASE_URL=… fhir-tail \
#     serve --listen 0.0.0.0:8080 --insecure-no-auth

ARG RUST=1.95
FROM rust:${RUST}-slim-bookworm AS rust
WORKDIR /build

# The manifests alone, beside sources that are empty. COPY --from below looks at contents: as long as no manifest
# changes, the layer with all that we depend on is taken from the cache.
FROM rust AS manifests
COPY . .
RUN find . -type f ! -name Cargo.toml ! -name Cargo.lock ! -name lib.rs ! -name main.rs ! -name build.rs -delete \
    && find . -name '*.rs' -exec sh -c 'for file; do echo "fn main() { }" > "$file"; done' sh {} +

FROM rust AS build
# Names of functions in a backtrace are worth their bytes; tables of line numbers would double the image.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
COPY --from=manifests /build .
RUN cargo build --release --locked --package fhir-tail
COPY . .
# Cargo goes by times, and these files may be older than what was just built from the empty ones.
RUN find crates -name '*.rs' -exec touch {} + && cargo build --release --locked --package fhir-tail
RUN mkdir -m 0700 /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/fhir-tail /usr/local/bin/fhir-tail
# A volume that is mounted here takes over the owner: nonroot, who may not make it.
COPY --from=build --chown=65532:65532 /data /data
ENV FHIR_TAIL_DATA_DIR=/data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["fhir-tail", "ready"]
ENTRYPOINT ["fhir-tail"]
CMD ["serve"]
