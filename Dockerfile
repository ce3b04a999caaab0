# syntax of BuildKit (cache mounts), which every current Docker has on.
#   gateway      the product                       docker build --target gateway .
#   sandbox      the stand-in for Astra
#   tools        openssl, grpcurl: keys and calls for the compose file
#   integration  the integration suite
#   conformance  the four client libraries, packaged as users get them, and what performs the scenarios with them
# The gateway comes last, so that a plain `docker build .` makes it.

FROM debian:trixie-slim AS compiler
RUN apt-get update && apt-get install -y --no-install-recommends \
      g++ cmake ninja-build ccache pkg-config \
      libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev python3-googleapis-common-protos libabsl-dev libre2-dev \
      libcurl4-openssl-dev libnghttp2-dev libjemalloc-dev libicu-dev libssl-dev libsqlite3-dev nlohmann-json3-dev libspdlog-dev prometheus-cpp-dev libmicrohttpd-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src

FROM compiler AS build
COPY CMakeLists.txt CMakePresets.json ./
COPY cmake cmake
COPY proto proto
COPY server server
RUN --mount=type=cache,target=/root/.cache/ccache \
    cmake --preset release -DUSERINTENT_TESTS=OFF -DUSERINTENT_SANDBOX=OFF && cmake --build --preset release \
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

FROM debian:trixie-slim AS python
# ca-certificates before pip: it brings the certificates that pip checks the package registry against.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv && rm -rf /var/lib/apt/lists/*

FROM python AS integration
COPY tests/requirements.txt /suite/
RUN python3 -m venv /suite/venv \
    && /suite/venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --requirement /suite/requirements.txt
COPY proto /suite/proto
COPY tests/support /suite/tests/support
# The stubs of proto/ are made here: the user of a container may not write there.
ENV E2E_BUILD_DIR=/suite/stubs PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /suite/tests
RUN /suite/venv/bin/python -m support.protos
COPY tests/compose /suite/tests/compose
WORKDIR /suite
USER 10003:10003
ENTRYPOINT ["/suite/venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "/suite/tests/compose"]

# What the gateway's programs and the C++ client need to run.
FROM debian:trixie-slim AS runtime
RUN apt-get update && apt-get install -y --no-install-recommends \
      ca-certificates libgrpc++1.51t64 libcurl4t64 libnghttp2-14 libjemalloc2 libicu76 libsqlite3-0 libspdlog1.15 libprometheus-cpp-core1.0 libcivetweb1 libmicrohttpd12t64 libgnutls30t64 libre2-11 \
    && rm -rf /var/lib/apt/lists/*

# The Go library: a module that another one names.
FROM golang:1.26-trixie AS conformance-go
WORKDIR /src
COPY client_lib/go client_lib/go
COPY tests/conformance/go tests/conformance/go
WORKDIR /src/tests/conformance/go
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags='-s -w' -o /out/conformance-go .

# The Python library: a wheel, made through the source distribution and installed in a clean environment.
FROM python AS conformance-python
WORKDIR /src
RUN python3 -m venv /build && /build/bin/pip install --no-cache-dir --disable-pip-version-check build==1.6.1
COPY proto proto
COPY client_lib/python client_lib/python
RUN /build/bin/python -m build --outdir /dist client_lib/python \
    && python3 -m venv /opt/client-python \
    && /opt/client-python/bin/pip install --no-cache-dir --disable-pip-version-check /dist/userintent-*.whl

# The Java library: an artifact in the Maven repository, and a project that depends on it.
FROM debian:trixie-slim AS conformance-java
RUN mkdir -p /usr/share/man/man1 && apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates default-jdk-headless maven && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY proto proto
COPY client_lib/java client_lib/java
COPY tests/conformance/java tests/conformance/java
RUN --mount=type=cache,target=/root/.m2 \
    mvn -q -ntp -B -f client_lib/java/pom.xml -DbuildDirectory=/build/library -Dmaven.test.skip=true install \
    && mvn -q -ntp -B -f tests/conformance/java/pom.xml -DbuildDirectory=/build/runner \
         compile dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=/out/lib \
    && cp -r /build/runner/classes /out/classes

# The C++ library: an installed CMake package, and a program that finds it.
FROM compiler AS conformance-cpp
COPY proto proto
COPY client_lib/cpp client_lib/cpp
COPY tests/conformance/cpp tests/conformance/cpp
RUN --mount=type=cache,target=/root/.cache/ccache \
    cmake -S client_lib/cpp -B /build/library -G Ninja -DCMAKE_BUILD_TYPE=Release && cmake --build /build/library \
    && cmake --install /build/library --prefix /prefix \
    && cmake -S tests/conformance/cpp -B /build/runner -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH=/prefix \
    && cmake --build /build/runner && install -D -s /build/runner/conformance /out/conformance-cpp

FROM runtime AS gateway
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/userintent
COPY --from=build /src/build/release/bin/ /usr/local/bin/
# A library that is missing here must fail the build, not the start.
RUN for program in /usr/local/bin/*; do case "$(ldd "$program")" in *'not found'*) ldd "$program"; exit 1 ;; esac; done
# Settings come as USERINTENT_ variables and not as arguments, so that the health check sees the same ones.
ENV USERINTENT_LEDGER=sqlite:/var/lib/userintent/ledger.db
USER 10001:10001
EXPOSE 50051
HEALTHCHECK --interval=2s --timeout=5s --retries=15 CMD ["/usr/local/bin/userintent-server", "--healthcheck"]
ENTRYPOINT ["/usr/local/bin/userintent-server"]

FROM runtime AS conformance
RUN mkdir -p /usr/share/man/man1 && apt-get update \
    && apt-get install -y --no-install-recommends default-jre-headless openssl python3 && rm -rf /var/lib/apt/lists/*
COPY --from=integration /suite/venv /suite/venv
COPY --from=integration /suite/stubs /suite/stubs
COPY --from=conformance-python /opt/client-python /opt/client-python
COPY --from=conformance-java /out /opt/client-java
COPY --from=conformance-go /out/conformance-go /usr/local/bin/
COPY --from=conformance-cpp /out/conformance-cpp /usr/local/bin/
COPY --from=sandbox /astra-sandbox /usr/local/bin/
COPY --from=gateway /usr/local/bin/userintent-server /usr/local/bin/
RUN for program in /usr/local/bin/*; do case "$(ldd "$program" 2>&1)" in *'not found'*) ldd "$program"; exit 1 ;; esac; done
COPY proto /suite/proto
COPY tests/support /suite/tests/support
COPY tests/conformance /suite/tests/conformance
ENV E2E_BUILD_DIR=/suite/stubs PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    GATEWAY_BIN_DIR=/usr/local/bin \
    CONFORMANCE_GO=/usr/local/bin/conformance-go CONFORMANCE_CPP=/usr/local/bin/conformance-cpp \
    CONFORMANCE_PYTHON=/opt/client-python/bin/python CONFORMANCE_JAVA_CLASSPATH=/opt/client-java/classes:/opt/client-java/lib/*
WORKDIR /suite
USER 10003:10003
ENTRYPOINT ["/suite/venv/bin/python", "/suite/tests/conformance/run.py"]

FROM gateway
