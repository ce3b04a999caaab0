# syntax of BuildKit (cache mounts), which every current Docker has on.
#   gateway      the product                       docker build --target gateway .
#   sandbox      the stand-in for Astra
#   tools        openssl, grpcurl: keys and calls for the compose file
#   integration  the integration suite
#   conformance  the four client libraries, packaged as users get them, and what performs the scenarios with them
#   postgres     PostgreSQL as the primary or the standby of docker-compose.replicas.yml
#   balancer     the load balancer of docker-compose.replicas.yml
#   current      the C++ unit tests on the gRPC of the image (make grpc-current)
# The gateway comes last, so that a plain `docker build .` makes it.
#
# DEBIAN_IMAGE and GOLANG_IMAGE may name the public images by digest (docs/dependencies.md, "Images"). GRPC_FLOOR: a gRPC
# that is older fails the build.
ARG DEBIAN_IMAGE=debian:trixie-slim
ARG GOLANG_IMAGE=golang:1.26-trixie

# Debian 13 with the gRPC of Debian experimental, because Debian 13's own lacks the fixes of public faults
# (docs/decisions/0014-current-grpc.md).
FROM ${DEBIAN_IMAGE} AS current-debian
COPY docker/use-current-grpc.sh docker/current-grpc.pref docker/check-grpc.sh /opt/docker/
RUN /opt/docker/use-current-grpc.sh

FROM current-debian AS compiler
ARG GRPC_FLOOR=1.83
RUN apt-get update && apt-get install -y --no-install-recommends \
      ca-certificates g++ cmake ninja-build ccache pkg-config \
      libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev python3-googleapis-common-protos libabsl-dev libre2-dev \
      libcurl4-openssl-dev libnghttp2-dev libjemalloc-dev libicu-dev libssl-dev libsqlite3-dev libpq-dev nlohmann-json3-dev libspdlog-dev prometheus-cpp-dev libmicrohttpd-dev \
    && rm -rf /var/lib/apt/lists/* \
    && /opt/docker/check-grpc.sh "$GRPC_FLOOR"
WORKDIR /src

# For scripts/grpc-current.sh, which brings the sources along.
FROM compiler AS current
RUN apt-get update && apt-get install -y --no-install-recommends libgtest-dev libgmock-dev postgresql && rm -rf /var/lib/apt/lists/*

FROM compiler AS build
COPY CMakeLists.txt CMakePresets.json ./
COPY cmake cmake
COPY proto proto
COPY server server
RUN --mount=type=cache,target=/root/.cache/ccache \
    cmake --preset release -DUSERINTENT_TESTS=OFF -DUSERINTENT_SANDBOX=OFF && cmake --build --preset release \
    && strip --strip-debug build/release/bin/*

FROM ${GOLANG_IMAGE} AS go-sandbox
WORKDIR /src
COPY tests/astra_sandbox/go.mod tests/astra_sandbox/go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY tests/astra_sandbox ./
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /out/astra-sandbox .

FROM ${GOLANG_IMAGE} AS go-tools
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

FROM ${DEBIAN_IMAGE} AS tools
RUN apt-get update && apt-get install -y --no-install-recommends openssl && rm -rf /var/lib/apt/lists/*
COPY --from=go-tools /out/grpcurl /usr/local/bin/grpcurl
COPY --chmod=0755 scripts/compose/ /usr/local/bin/
USER 10003:10003

# A user of a number of its own before the packages make one.
FROM ${DEBIAN_IMAGE} AS postgres
RUN groupadd --system --gid 10004 postgres \
    && useradd --system --uid 10004 --gid postgres --home-dir /var/lib/postgresql --shell /usr/sbin/nologin postgres \
    && apt-get update && apt-get install -y --no-install-recommends postgresql-common \
    && sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf \
    && apt-get install -y --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/* \
    && install -d -o 10004 -g 10004 -m 0700 /var/lib/postgresql
COPY --chmod=0755 docker/replicas/postgres.sh /usr/local/bin/
USER 10004:10004
EXPOSE 5432
ENTRYPOINT ["postgres.sh"]

FROM ${DEBIAN_IMAGE} AS balancer
RUN apt-get update && apt-get install -y --no-install-recommends haproxy && rm -rf /var/lib/apt/lists/*
COPY --chmod=0755 docker/replicas/balancer-healthy.sh /usr/local/bin/
COPY docker/replicas/haproxy.cfg /etc/haproxy/haproxy.cfg
USER 10005:10005
EXPOSE 50051
ENTRYPOINT ["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]

FROM ${DEBIAN_IMAGE} AS python
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

# What the gateway's image is made of: the programs, what they need of this Debian, and the list of it all.
FROM build AS packed
COPY docker/pack.sh /opt/docker/
RUN cp build/release/bin/* /usr/local/bin/ \
    && /opt/docker/pack.sh /image /usr/local/bin/userintent-server /usr/local/bin/userintent-ledger \
    && dpkg-query -W -f '${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n' \
         nlohmann-json3-dev python3-googleapis-common-protos >/image.build \
    && userintent-server --version >/image.version

FROM python AS sbom
COPY docker/sbom.py /opt/docker/
COPY --from=packed /image.files /image.build /image.version /
RUN python3 /opt/docker/sbom.py /image.files /image.build "$(sed 's/.* //' /image.version)" >/sbom.cdx.json

# Debian with what the programs need of it; for the image of the conformance scenarios, which has a shell and more.
FROM current-debian AS runtime
# hadolint ignore=DL4006
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
      "$(apt-cache depends libgrpc++-dev | sed -n 's/.*Depends: \(libgrpc++[0-9].*\)/\1/p')" \
      libcurl4t64 libnghttp2-14 libjemalloc2 libicu76 libsqlite3-0 libpq5 libspdlog1.15 libprometheus-cpp-core1.0 libcivetweb1 libmicrohttpd12t64 libgnutls30t64 \
    && rm -rf /var/lib/apt/lists/*

# The Go library: a module that another one names.
FROM ${GOLANG_IMAGE} AS conformance-go
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
FROM ${DEBIAN_IMAGE} AS conformance-java
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

# No shell, no package manager: the programs, their libraries, and the bill of materials.
FROM scratch AS gateway
COPY --from=packed /image/ /
COPY --from=sbom /sbom.cdx.json /usr/share/doc/userintent/sbom.cdx.json
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
