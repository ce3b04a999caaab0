module example.com/userintent/tests/bench/peer_go

go 1.24.0

require (
	example.com/userintent v0.0.0
	google.golang.org/grpc v1.79.3
	google.golang.org/protobuf v1.36.11
)

require (
	github.com/mattn/go-sqlite3 v1.14.53
	golang.org/x/net v0.48.0 // indirect
	golang.org/x/sys v0.39.0 // indirect
	golang.org/x/text v0.32.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20251202230838-ff82c1b0f217 // indirect
)

replace example.com/userintent => ../../../client_lib/go
