#!/bin/sh
# Keys, certificates and credentials for the compose file, thrown away with its volumes (`docker compose down -v`).
# Runs as root in the one-shot service `certs`; each file ends up owned by the one user who may read it, mode 0400.
# What exists is kept: the ledger is bound to its key. Certificates are good for 30 days and renewed with a day left.
#   /secrets/gateway, /secrets/sandbox, /secrets/client: one volume for each of the three users
#   /secrets/postgres: where it is there (docker-compose.replicas.yml), that of the databases
set -eu
umask 077
days=30
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

own() { # own UID DIRECTORY
  chmod 0500 "$2"
  find "$2" -type f -exec chmod 0400 {} +
  chown -R "$1:$1" "$2"
}

authority() { # authority NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$days" -keyout "$1.key" -out "$1.crt" -subj "/CN=throw-away $1" \
    -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign' 2>/dev/null
}

leaf() { # leaf AUTHORITY NAME SANS EKU; an empty SANS makes a certificate without a name in it
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$2.key" -subj "/CN=$2" -out "$2.csr" 2>/dev/null
  {
    echo 'basicConstraints=critical,CA:FALSE'
    echo 'keyUsage=critical,digitalSignature'
    echo "extendedKeyUsage=$4"
    [ -z "$3" ] || echo "subjectAltName=$3"
  } >"$2.ext"
  openssl x509 -req -in "$2.csr" -CA "$1.crt" -CAkey "$1.key" -CAcreateserial -days "$days" -extfile "$2.ext" -out "$2.crt" 2>/dev/null
  openssl verify -CAfile "$1.crt" "$2.crt" >/dev/null
}

if ! openssl x509 -in /secrets/gateway/gateway.crt -noout -checkend 86400 >/dev/null 2>&1; then
  echo 'certs: making a CA, and certificates for the gateway, the sandbox and the clients'
  authority ca
  authority stranger-ca
  leaf ca gateway 'DNS:gateway,DNS:gateway-hooked,DNS:localhost,IP:127.0.0.1,URI:spiffe://test.example/gateway' serverAuth,clientAuth
  leaf ca astra-sandbox 'DNS:astra-sandbox,DNS:localhost,IP:127.0.0.1' serverAuth
  leaf ca client 'URI:spiffe://test.example/client' clientAuth
  leaf ca other 'URI:spiffe://test.example/other' clientAuth
  leaf ca nameless '' clientAuth
  leaf stranger-ca stranger 'URI:spiffe://test.example/client' clientAuth
  # Not moved but written over: the files in the volumes belong to their users already when this is a renewal.
  cat ca.crt >/secrets/gateway/ca.crt
  cat gateway.crt >/secrets/gateway/gateway.crt
  cat gateway.key >/secrets/gateway/gateway.key
  cat ca.crt >/secrets/sandbox/ca.crt
  cat astra-sandbox.crt >/secrets/sandbox/astra-sandbox.crt
  cat astra-sandbox.key >/secrets/sandbox/astra-sandbox.key
  cat ca.crt >/secrets/client/ca.crt
  for name in client other nameless stranger; do
    cat "$name.crt" >"/secrets/client/$name.crt"
    cat "$name.key" >"/secrets/client/$name.key"
  done
  if [ -d /secrets/postgres ]; then
    cat ca.crt >/secrets/postgres/ca.crt
    for name in pg-a pg-b; do
      leaf ca "$name" "DNS:$name" serverAuth
      cat "$name.crt" >"/secrets/postgres/$name.crt"
      cat "$name.key" >"/secrets/postgres/$name.key"
    done
  fi
fi

if [ ! -s /secrets/gateway/ledger.key ]; then
  echo 'certs: making credentials for the sandbox and a ledger key'
  printf 'client-%s' "$(openssl rand -hex 8)" >/secrets/gateway/astra_client_id
  openssl rand -hex 24 >/secrets/gateway/astra_client_secret
  cp /secrets/gateway/astra_client_id /secrets/gateway/astra_client_secret /secrets/sandbox/
  openssl rand -out /secrets/gateway/ledger.key 32
fi

if [ -d /secrets/postgres ] && [ ! -s /secrets/postgres/passfile ]; then
  echo 'certs: making passwords for the databases'
  openssl rand -hex 24 >/secrets/postgres/userintent_password
  openssl rand -hex 24 >/secrets/postgres/replicator_password
  echo "*:*:*:userintent:$(cat /secrets/postgres/userintent_password)" >/secrets/gateway/pgpass
  echo "*:*:*:replicator:$(cat /secrets/postgres/replicator_password)" >/secrets/postgres/passfile
fi

own 10001 /secrets/gateway
own 10002 /secrets/sandbox
own 10003 /secrets/client
if [ -d /secrets/postgres ]; then own 10004 /secrets/postgres; fi
chown 10001:10001 /ledger
chmod 0700 /ledger
echo 'certs: ready'
