//go:build e2e

// Package e2e tests the library against the real gateway and astra-sandbox, whose programs are in GATEWAY_BIN_DIR.
// scripts/test-client-go.sh runs it.
package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "example.com/userintent/userintentv1"
)

const patience = 30 * time.Second

// stage is a sandbox and a gateway in front of it, both on ports of their own choice, by tests/support/stage.py.
type stage struct {
	Gateway string // host:port
	Admin   string // URL of the sandbox's admin address
	valid   *pb.CreateUserIntentRequest
}

// start serves until the test ends. The flags are the gateway's, without dashes.
func start(t *testing.T, flags ...string) *stage {
	t.Helper()
	tests := filepath.Join(checkout(t), "tests")
	c := exec.Command("python3", "-m", "support.stage")
	for _, flag := range flags {
		c.Args = append(c.Args, "--gateway="+flag)
	}
	c.Env = append(os.Environ(), "PYTHONPATH="+tests)
	c.Stderr = os.Stderr
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	told, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := c.Wait(); err != nil {
			t.Errorf("the stage ended: %v", err)
		}
	})
	s := &stage{valid: &pb.CreateUserIntentRequest{}}
	var person struct{ Person json.RawMessage }
	line, err := bufio.NewReader(told).ReadBytes('\n')
	if err == nil {
		err = errors.Join(json.Unmarshal(line, s), json.Unmarshal(line, &person), protojson.Unmarshal(person.Person, s.valid))
	}
	if err != nil {
		t.Fatalf("the stage said %q: %v", line, err)
	}
	return s
}

func checkout(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../../../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// person is a valid one; the library makes its request_id.
func (s *stage) person(email string) *pb.CreateUserIntentRequest {
	request := proto.CloneOf(s.valid)
	request.RequestId, request.Email = "", email
	return request
}

var web = &http.Client{Timeout: patience, Transport: &http.Transport{}}

// ask talks to the sandbox's admin address: POST with a body, else GET.
func (s *stage) ask(t *testing.T, path string, body, out any) {
	t.Helper()
	var response *http.Response
	var err error
	if body != nil {
		data, _ := json.Marshal(body)
		response, err = web.Post(s.Admin+path, "application/json", bytes.NewReader(data))
	} else {
		response, err = web.Get(s.Admin + path)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", response.StatusCode, data)
	}
	if err == nil && out != nil {
		err = json.Unmarshal(data, out)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

type account struct {
	Posts []struct {
		Email    string
		Status   int
		IntentID string `json:"intent_id"`
	}
	Intents []struct{ ID, Email string }
}
