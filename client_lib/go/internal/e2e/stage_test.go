//go:build e2e

// Package e2e tests the library against the real gateway and astra-sandbox, whose programs are in GATEWAY_BIN_DIR.
// scripts/test-client-go.sh runs it.
package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const patience = 30 * time.Second

// stage is a sandbox and a gateway in front of it, both on ports of their own choice.
type stage struct {
	gateway string // host:port
	admin   string // URL of the sandbox's admin address
}

func start(t *testing.T, flags ...string) *stage {
	t.Helper()
	bin := os.Getenv("GATEWAY_BIN_DIR")
	if bin == "" {
		t.Fatal("GATEWAY_BIN_DIR is not set")
	}
	dir := t.TempDir()
	s := &stage{}

	sandbox := command(filepath.Join(bin, "astra-sandbox"), "--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0", "--self_signed_dir="+filepath.Join(dir, "tls"))
	told, err := sandbox.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	run(t, sandbox)
	var addresses struct {
		URL, Admin string
		CAFile     string `json:"ca_file"`
	}
	line, err := bufio.NewReader(told).ReadString('\n')
	if err == nil {
		err = json.Unmarshal([]byte(line), &addresses)
	}
	if err != nil {
		t.Fatalf("the sandbox said %q: %v", line, err)
	}
	s.admin = addresses.Admin

	key := make([]byte, 48)
	_, _ = rand.Read(key)
	for name, data := range map[string][]byte{"client_id": []byte("sandbox-client"), "client_secret": []byte("sandbox-secret"), "ledger.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	gateway := command(filepath.Join(bin, "userintent-server"), append([]string{
		"--listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0", "--astra_base_url=" + addresses.URL, "--astra_ca_file=" + addresses.CAFile,
		"--astra_client_id_file=" + filepath.Join(dir, "client_id"), "--astra_client_secret_file=" + filepath.Join(dir, "client_secret"),
		"--ledger_key_file=" + filepath.Join(dir, "ledger.key"), "--ledger=sqlite:" + filepath.Join(dir, "data", "ledger.db"),
	}, flags...)...)
	log, err := gateway.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	run(t, gateway)
	listening := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			var entry struct{ Event, Address string }
			if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Event == "listening" {
				listening <- entry.Address
			}
		}
		_, _ = io.Copy(io.Discard, log)
		close(listening)
	}()
	select {
	case s.gateway = <-listening:
	case <-time.After(patience):
	}
	if s.gateway == "" {
		t.Fatal("the gateway does not serve")
	}
	return s
}

func command(name string, arguments ...string) *exec.Cmd {
	c := exec.Command(name, arguments...)
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "USERINTENT_") {
			c.Env = append(c.Env, entry)
		}
	}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

func run(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
}

var web = &http.Client{Timeout: patience, Transport: &http.Transport{}}

// ask talks to the sandbox's admin address: POST with a body, else GET.
func (s *stage) ask(t *testing.T, path string, body, out any) {
	t.Helper()
	var response *http.Response
	var err error
	if body != nil {
		data, _ := json.Marshal(body)
		response, err = web.Post(s.admin+path, "application/json", bytes.NewReader(data))
	} else {
		response, err = web.Get(s.admin + path)
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
