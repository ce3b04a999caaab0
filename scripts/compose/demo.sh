#!/bin/sh
# The one call that `docker compose up` shows: CreateUserIntent for an invented person, over mTLS. REQUEST_ID, where
# given, makes it the same person and the same request each time.
#   demo.sh once|stay   stay: does not end after the call, and is healthy by the file /tmp/shown
set -eu
uuid=${REQUEST_ID:-$(cat /proc/sys/kernel/random/uuid)}
method=userintent.v1.UserIntentService/CreateUserIntent
request=$(
  cat <<JSON
{
  "request_id": "$uuid",
  "email": "ada.${uuid%%-*}@example.com",
  "phone": "+12025550123",
  "first_name": "Ada",
  "last_name": "Approved",
  "address1": "1 Example Street",
  "city": "Springfield",
  "state": "IL",
  "postal_code": "62701",
  "date_of_birth": "1990-02-28",
  "ssn_last_four": "1234",
  "ip_address": "8.8.8.8"
}
JSON
)
echo '==> One call over mTLS: CreateUserIntent for an invented person'
echo "$request"
echo '==> The answer'
call.sh -d "$request" gateway:50051 "$method"
echo '==> Your turn. The same request_id again gives the same intent, and Astra is not asked twice:'
printf "docker compose run --rm -T grpcurl -d '%s' gateway:50051 %s\n" "$(echo "$request" | tr -d '\n' | sed 's/  */ /g')" "$method"
if [ "${1:-once}" = stay ]; then
  touch /tmp/shown
  exec sleep infinity
fi
