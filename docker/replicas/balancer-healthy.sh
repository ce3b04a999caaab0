#!/bin/bash
# Whether the load balancer has a gateway to give calls to.
exec 3<>/dev/tcp/127.0.0.1/8404
printf 'GET /healthy HTTP/1.0\r\n\r\n' >&3
read -r _ status _ <&3
[ "$status" = 200 ]
