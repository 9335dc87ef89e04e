# One image with the three programs; the chart chooses by `command`. Base names are literal and the last stage only copies,
# so that any builder (docker, buildah, kaniko) makes the same image.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# rdkafka-sys compiles librdkafka by configure and make, into the binary. OpenSSL and zlib, which librdkafka needs, are
# linked statically too: the last stage then needs nothing beside glibc and libgcc, and its zlib and OpenSSL are those of
# this stage's Debian, patched by rebuilding the image, as the rest. (pkg-config never answers `static` for libraries below
# /usr, hence the folders by name.)
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends build-essential pkg-config libssl-dev zlib1g-dev \
    && export LIBZ_SYS_STATIC=1 OPENSSL_STATIC=1 \
        OPENSSL_LIB_DIR="/usr/lib/$(uname -m)-linux-gnu" OPENSSL_INCLUDE_DIR=/usr/include \
    && cargo build --locked --release -p weir-jobmanager -p weir-taskmanager -p weir-cli --bins \
    && mkdir /out \
    && cp target/release/weir-jobmanager target/release/weir-taskmanager target/release/weir /out/

# glibc, libgcc, CA certificates, time zones; neither shell nor package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/ /usr/local/bin/
# librdkafka's OpenSSL looks here unless `ssl.ca.location` says otherwise.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
# gRPC, HTTP, metrics
EXPOSE 6123 8081 9999
CMD ["/usr/local/bin/weir", "--help"]
