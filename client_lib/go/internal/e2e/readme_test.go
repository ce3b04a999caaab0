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
	library, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(library, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	s := start(t)
	dir := t.TempDir()
	shell := func(script string) string {
		t.Helper()
		c := exec.Command("sh", "-euc", script)
		c.Dir = dir
		c.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "USERINTENT_GATEWAY="+s.gateway)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}

	files := 0
	for _, block := range regexp.MustCompile("(?ms)^```go\n// (\\w+\\.go)\n(.*?)^```").FindAllStringSubmatch(string(readme), -1) {
		files++
		if err := os.WriteFile(filepath.Join(dir, block[1]), []byte(block[2]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if blocks := strings.Count(string(readme), "```go\n"); files != blocks || files < 2 {
		t.Fatalf("%d of %d Go blocks have a file name", files, blocks)
	}
	install := regexp.MustCompile("(?s)```sh\n(.*?)```").FindStringSubmatch(string(readme))
	if install == nil {
		t.Fatal("no install commands")
	}
	said := shell(strings.ReplaceAll(install[1], "../userintent-gateway/client_lib/go", library)) // ends with the first run
	if got := shell("gofmt -l ."); got != "" {
		t.Errorf("not formatted as gofmt does: %s", got)
	}
	shell("go vet . && go build -o service .")

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
