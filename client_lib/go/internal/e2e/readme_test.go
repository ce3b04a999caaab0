//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A service in a module of its own, made of nothing but the README's lines: its install commands, its Go files. It runs
// twice, as a reader's would.
func TestReadme(t *testing.T) {
	library, root := filepath.Join(checkout(t), "client_lib", "go"), checkout(t)
	readme := func(arguments ...string) string {
		t.Helper()
		c := exec.Command(filepath.Join(root, "scripts", "readme.py"), arguments...)
		c.Stderr = os.Stderr
		out, err := c.Output()
		if err != nil {
			t.Fatalf("readme.py %q: %v", arguments, err)
		}
		return string(out)
	}
	s := start(t)
	dir := t.TempDir()
	shell := func(script string) string {
		t.Helper()
		c := exec.Command("sh", "-euc", script)
		c.Dir = dir
		c.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "USERINTENT_GATEWAY="+s.Gateway)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}

	page := filepath.Join(library, "README.md")
	readme(page, dir)
	if files, _ := filepath.Glob(filepath.Join(dir, "*.go")); len(files) < 2 {
		t.Fatalf("the README has %d Go files", len(files))
	}
	said := shell(strings.ReplaceAll(readme("--steps", page), "../userintent-gateway/client_lib/go", library)) // ends with the first run
	if got := shell("gofmt -l ."); got != "" {
		t.Errorf("not formatted as gofmt does: %s", got)
	}
	shell("go vet . && go test . && go build -o service .")

	said += shell("./service")
	lines := regexp.MustCompile(`(?m)^[0-9a-f-]{36} (\S+) false$`).FindAllStringSubmatch(said, -1)
	var a account
	s.ask(t, "/accounting", nil, &a)
	if len(a.Posts) != 2 || len(a.Intents) != 2 || len(lines) != 2 {
		t.Fatalf("%d POSTs, %d intents; it said:\n%s", len(a.Posts), len(a.Intents), said)
	}
	told := map[string]bool{lines[0][1]: true, lines[1][1]: true}
	if !told[a.Intents[0].ID] || !told[a.Intents[1].ID] {
		t.Errorf("other intents than the sandbox's: %s", said)
	}
}
