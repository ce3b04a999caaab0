//go:build tools

// Package tools pins the Go programs that tests and `make run` use: `go install` takes their versions from go.mod, their sums from go.sum.
package tools

import _ "github.com/fullstorydev/grpcurl/cmd/grpcurl"
