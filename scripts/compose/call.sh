#!/bin/sh
# grpcurl with the client's certificate: call.sh [GRPCURL ARGUMENT ...]
exec grpcurl -cacert /secrets/client/ca.crt -cert /secrets/client/client.crt -key /secrets/client/client.key -max-time 40 "$@"
