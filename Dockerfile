# syntax of BuildKit (cache mounts), which every current Docker has on.
#   gateway      the product                       docker build --target gateway .
#   sandbox      the stand-in for Astra
#   tools        openssl, grpcurl: keys and calls for the compose file
#   integration  the integration suite
# The gateway comes last, so that a plain `docker build .` makes it.

FROM debian:trixie-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
      g++ cmake ninja-build ccache pkg-config \
      libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev python3-googleapis-common-protos libabsl-dev libre2-dev \
      libcurl4-openssl-dev libnghttp2-dev libssl-dev libsqlite3-dev nlohmann-json3-dev libspdlog-dev prometheus-cpp-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY CMakeLists.txt CMakePresets.json ./
COPY cmake cmake
COPY proto proto
COPY server server
RUN --mount=type=cache,target=/root/.cache/ccache \
    cmake --preset release -DUSERINTENT_TESTS=OFF && cmake --build --preset release \
    && strip --strip-debug build/release/bin/*

FROM golang:1.26-trixie AS go-sandbox
WORKDIR /src
COPY tests/astra_sandbox/go.mod tests/astra_sandbox/go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY tests/astra_sandbox ./
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /out/astra-sandbox .

FROM golang:1.26-trixie AS go-tools
WORKDIR /src
COPY tests/tools ./
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags='-s -w' -o /out/grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl

FROM scratch AS sandbox
COPY --from=go-sandbox /out/astra-sandbox /astra-sandbox
USER 10002:10002
EXPOSE 8443 8444
HEALTHCHECK --interval=2s --timeout=3s --retries=15 CMD ["/astra-sandbox", "--healthcheck"]
ENTRYPOINT ["/astra-sandbox"]

FROM debian:trixie-slim AS tools
RUN apt-get update && apt-get install -y --no-install-recommends openssl && rm -rf /var/lib/apt/lists/*
COPY --from=go-tools /out/grpcurl /usr/local/bin/grpcurl
COPY --chmod=0755 scripts/compose/ /usr/local/bin/
USER 10003:10003

FROM debian:trixie-slim AS integration
# ca-certificates before pip: it brings the certificates that pip checks the package registry against.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv && rm -rf /var/lib/apt/lists/*
COPY tests/requirements.txt /suite/
RUN python3 -m venv /suite/venv \
    && /suite/venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --requirement /suite/requirements.txt
COPY proto /suite/proto
WORKDIR /suite/proto
RUN mkdir /suite/stubs && /suite/venv/bin/python -m grpc_tools.protoc -I. -I"$(echo /suite/venv/lib/python3*/site-packages)" \
      --python_out=/suite/stubs --grpc_python_out=/suite/stubs userintent/v1/*.proto
COPY tests/compose /suite/tests
ENV PYTHONPATH=/suite/stubs PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /suite
USER 10003:10003
ENTRYPOINT ["/suite/venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "/suite/tests"]

FROM debian:trixie-slim AS gateway
RUN apt-get update && apt-get install -y --no-install-recommends \
      ca-certificates libgrpc++1.51t64 libcurl4t64 libnghttp2-14 libsqlite3-0 libspdlog1.15 libprometheus-cpp-core1.0 libcivetweb1 libre2-11 \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/userintent
COPY --from=build /src/build/release/bin/ /usr/local/bin/
# A library that is missing here must fail the build, not the start.
RUN for program in /usr/local/bin/*; do case "$(ldd "$program")" in *'not found'*) ldd "$program"; exit 1 ;; esac; done
# Settings come as USERINTENT_ variables and not as arguments, so that the health check sees the same ones.
ENV USERINTENT_LEDGER=sqlite:/var/lib/userintent/ledger.db
USER 10001:10001
EXPOSE 50051
HEALTHCHECK --interval=2s --timeout=5s --retries=15 CMD ["/usr/local/bin/userintent-server", "--healthcheck"]
ENTRYPOINT ["/usr/local/bin/userintent-server"]
