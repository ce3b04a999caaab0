// The conformance runner of the Go library: performs a plan as ../README.md says.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/timestamppb"

	"example.com/userintent"
	pb "example.com/userintent/userintentv1"
)

type plan struct {
	Sandbox, Control string
	Clients          map[string]clientPlan
	NeverInText      []string `json:"never_in_text"`
	Scenarios        []scenario
}

type clientPlan struct {
	Address    string
	CAFile     string `json:"ca_file"`
	CertFile   string `json:"cert_file"`
	KeyFile    string `json:"key_file"`
	ServerName string `json:"server_name"`
	MaxTries   int    `json:"max_tries"`
}

type scenario struct {
	Name   string
	Steps  []step
	Posts  map[string]int
	Gets   map[string]int
	Calls  map[string]int
	Bodies map[string]map[string]any
	Report bool
}

type step struct {
	Do           string
	Name         string
	Client       string
	Request      json.RawMessage
	UnknownField bool    `json:"unknown_field"`
	DeadlineMs   int     `json:"deadline_ms"`
	MaxTries     int     `json:"max_tries"`
	Of           string  // repeat
	RequestID    string  `json:"request_id"`
	UserIntentID *string `json:"user_intent_id"`
	MaxAgeMs     int     `json:"max_age_ms"`
	AllowStale   bool    `json:"allow_stale"`
	Expect       json.RawMessage
	Shows, Hides []string
	To, Method   string
	Path         string
	Body         json.RawMessage
	Email        string
	Count        int
	Calls        int
	Concurrency  int
	MinOK        int      `json:"min_ok"`
	EmailPrefix  string   `json:"email_prefix"`
	EmailSuffix  string   `json:"email_suffix"`
	RequestIDs   []string `json:"request_ids"`
	ResumeOf     string   `json:"resume_of"`
	ResumeToken  []byte   `json:"resume_token"`
	Exact        bool
	Wait         string
	Statuses     []string
	RedirectURI  string `json:"redirect_uri"`
	State        string
	AppURL       string `json:"app_url"`
	ClientID     string `json:"client_id"`
}

// outcome is how a call of the library ended.
type outcome struct {
	client *userintent.Client
	fields map[string]any // as ../README.md names them
	err    error
	texts  []string // string forms of the request, and of the answer or the error
}

type background struct {
	cancel context.CancelFunc
	done   chan outcome
}

// run is one scenario at work.
type run struct {
	plan     *plan
	clients  map[string]*userintent.Client
	outcomes map[string]outcome
	running  map[string]background
	watches  map[string]*watching
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: conformance PLAN")
		os.Exit(2)
	}
	data, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	var p plan
	if err := json.Unmarshal(data, &p); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	passed, failed := 0, 0
	for _, s := range p.Scenarios {
		if err := perform(&p, s); err != nil {
			failed++
			fmt.Printf("FAILED %s: %v\n", s.Name, err)
		} else {
			passed++
			fmt.Printf("ok %s\n", s.Name)
		}
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}

func perform(p *plan, s scenario) (err error) {
	r := &run{plan: p, clients: map[string]*userintent.Client{}, outcomes: map[string]outcome{}, running: map[string]background{}, watches: map[string]*watching{}}
	defer func() {
		for _, w := range r.watches {
			err = errors.Join(err, w.stop())
		}
		for _, b := range r.running {
			b.cancel()
			<-b.done
		}
		for _, c := range r.clients {
			err = errors.Join(err, c.Close())
		}
	}()
	for number, st := range s.Steps {
		out, err := r.step(st)
		if err != nil {
			return fmt.Errorf("step %d: %s: %w", number, st.Do, err)
		}
		if s.Report && (st.Do == "create" || st.Do == "get") {
			value := out.fields["user_intent_id"]
			if out.fields["ok"] != true {
				value = fmt.Sprintf("%s/%s/%s/%s", out.fields["code"], out.fields["reason"], out.fields["sent"], out.fields["recovery"])
			}
			fmt.Printf("answer %s %d %s\n", s.Name, number, value)
		}
	}
	if err := r.checkAccounts(s); err != nil {
		return fmt.Errorf("end: %w", err)
	}
	return nil
}

func (r *run) step(s step) (outcome, error) {
	switch s.Do {
	case "create", "begin":
		client, err := r.client(s.Client)
		if err != nil {
			return outcome{}, err
		}
		request, err := parse(s)
		if err != nil {
			return outcome{}, err
		}
		ctx, cancel := deadline(s.DeadlineMs)
		var options []userintent.CallOption
		if s.MaxTries > 0 {
			options = append(options, userintent.WithMaxTries(s.MaxTries))
		}
		if s.Do == "begin" {
			b := background{cancel: cancel, done: make(chan outcome, 1)}
			r.running[s.Name] = b
			go func() { b.done <- create(ctx, client, request, options) }()
			return outcome{}, nil
		}
		defer cancel()
		return r.ended(s, create(ctx, client, request, options))
	case "cancel":
		b, found := r.running[s.Name]
		if !found {
			return outcome{}, fmt.Errorf("no call %q runs", s.Name)
		}
		b.cancel()
		return outcome{}, nil
	case "end":
		b, found := r.running[s.Name]
		if !found {
			return outcome{}, fmt.Errorf("no call %q runs", s.Name)
		}
		out := <-b.done
		b.cancel()
		delete(r.running, s.Name)
		return r.ended(s, out)
	case "repeat":
		of, found := r.outcomes[s.Of]
		if !found || of.err == nil {
			return outcome{}, fmt.Errorf("no call %q ended with an error", s.Of)
		}
		ctx, cancel := deadline(s.DeadlineMs)
		defer cancel()
		return r.ended(s, repeat(ctx, of))
	case "get":
		client, err := r.client(s.Client)
		if err != nil {
			return outcome{}, err
		}
		ctx, cancel := deadline(s.DeadlineMs)
		defer cancel()
		return r.ended(s, get(ctx, client, r.named(s.RequestID, "request_id")))
	case "read":
		client, err := r.client(s.Client)
		if err != nil {
			return outcome{}, err
		}
		ctx, cancel := deadline(s.DeadlineMs)
		defer cancel()
		return r.ended(s, r.read(ctx, client, s))
	case "text":
		request, err := parse(s)
		if err != nil {
			return outcome{}, err
		}
		for _, text := range forms(request) {
			for _, want := range s.Shows {
				if !strings.Contains(text, want) {
					return outcome{}, fmt.Errorf("the string form does not show %q", want)
				}
			}
			for number, secret := range s.Hides {
				if strings.Contains(text, secret) {
					return outcome{}, fmt.Errorf("the string form holds number %d of hides", number)
				}
			}
		}
		return outcome{}, r.checkTexts(forms(request))
	case "http":
		base := map[string]string{"sandbox": r.plan.Sandbox, "control": r.plan.Control}[s.To]
		if base == "" {
			return outcome{}, fmt.Errorf("no address %q", s.To)
		}
		return outcome{}, fetch(s.Method, base+s.Path, s.Body, nil)
	case "wait_posts":
		end := time.Now().Add(20 * time.Second)
		for {
			posts, err := r.posts(s.Email)
			if err != nil || len(posts) >= s.Count {
				return outcome{}, err
			}
			if time.Now().After(end) {
				return outcome{}, fmt.Errorf("expected %d posts, got %d", s.Count, len(posts))
			}
			time.Sleep(10 * time.Millisecond)
		}
	case "storm":
		return outcome{}, r.storm(s)
	case "watch":
		return outcome{}, r.watch(s)
	case "events", "stop", "watch_ended":
		w, found := r.watches[s.Name]
		if !found {
			return outcome{}, fmt.Errorf("no watch %q", s.Name)
		}
		switch s.Do {
		case "events":
			return outcome{}, r.events(s, w)
		case "stop":
			return outcome{}, w.stop()
		}
		return r.watchEnded(s, w)
	case "wait_for_outcome", "wait_for_status", "get_authorization_url":
		client, err := r.client(s.Client)
		if err != nil {
			return outcome{}, err
		}
		ctx, cancel := deadline(s.DeadlineMs)
		defer cancel()
		if s.Do == "get_authorization_url" {
			return r.ended(s, r.link(ctx, client, s))
		}
		return r.ended(s, wait(ctx, client, strings.TrimPrefix(s.Do, "wait_for_"), r.named(s.RequestID, "request_id"), s.Statuses))
	case "begin_wait":
		client, err := r.client(s.Client)
		if err != nil {
			return outcome{}, err
		}
		ctx, cancel := deadline(s.DeadlineMs)
		b := background{cancel: cancel, done: make(chan outcome, 1)}
		r.running[s.Name] = b
		id := r.named(s.RequestID, "request_id")
		go func() { b.done <- wait(ctx, client, s.Wait, id, s.Statuses) }()
		return outcome{}, nil
	case "authorization_url":
		return r.ended(s, r.helper(s))
	}
	return outcome{}, fmt.Errorf("this runner does not know %q", s.Do)
}

func (r *run) client(name string) (*userintent.Client, error) {
	if c, found := r.clients[name]; found {
		return c, nil
	}
	settings, found := r.plan.Clients[name]
	if !found {
		return nil, fmt.Errorf("no client %q", name)
	}
	options := []userintent.Option{userintent.WithPlaintext()}
	if settings.CAFile != "" {
		options[0] = userintent.WithTLS(userintent.TLS{CAFile: settings.CAFile, CertFile: settings.CertFile, KeyFile: settings.KeyFile, ServerName: settings.ServerName})
	}
	if settings.MaxTries > 0 {
		options = append(options, userintent.WithMaxTries(settings.MaxTries))
	}
	c, err := userintent.Dial(settings.Address, options...)
	if err == nil {
		r.clients[name] = c
	}
	return c, err
}

func parse(s step) (*pb.CreateUserIntentRequest, error) {
	request := &pb.CreateUserIntentRequest{}
	if err := protojson.Unmarshal(s.Request, request); err != nil {
		return nil, errors.New("the request cannot be read")
	}
	if s.UnknownField {
		request.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 22, protowire.VarintType), 1))
	}
	return request, nil
}

// deadline makes the context of a call; ms 0: none, below 0: over already.
func deadline(ms int) (context.Context, context.CancelFunc) {
	if ms != 0 {
		return context.WithTimeout(context.Background(), time.Duration(ms)*time.Millisecond)
	}
	return context.WithCancel(context.Background())
}

func create(ctx context.Context, client *userintent.Client, request *pb.CreateUserIntentRequest, options []userintent.CallOption) outcome {
	start := time.Now()
	result, err := client.CreateUserIntent(ctx, request, options...)
	out := created(client, result, err, start)
	out.texts = append(out.texts, forms(request)...)
	return out
}

func repeat(ctx context.Context, of outcome) outcome {
	start := time.Now()
	result, err := of.client.Repeat(ctx, of.err)
	return created(of.client, result, err, start)
}

func created(client *userintent.Client, result *userintent.Result, err error, start time.Time) outcome {
	if err != nil {
		return failed(client, err, start)
	}
	out := outcome{client: client, fields: none(start)}
	maps.Copy(out.fields, intentFields(result.Response.GetUserIntent()))
	maps.Copy(out.fields, map[string]any{
		"ok": true, "code": "OK", "replayed": result.Replayed(), "used_min": int(result.Response.GetAttempts().GetUsedMin()),
		"used_max": int(result.Response.GetAttempts().GetUsedMax()), "limit": int(result.Response.GetAttempts().GetLimit()),
		"user_intent_id": result.UserIntentID(), "request_id": result.RequestID, "tries": result.Tries,
	})
	out.texts = append(forms(result), result.Response.String())
	return out
}

func get(ctx context.Context, client *userintent.Client, id string) outcome {
	start := time.Now()
	creation, err := client.GetCreation(ctx, id)
	if err != nil {
		return failed(client, err, start)
	}
	out := outcome{client: client, fields: none(start)}
	maps.Copy(out.fields, intentFields(creation.GetUserIntent()))
	maps.Copy(out.fields, map[string]any{
		"ok": true, "code": "OK", "reason": creation.GetError().GetReason(), "used_min": int(creation.GetAttempts().GetUsedMin()),
		"used_max": int(creation.GetAttempts().GetUsedMax()), "limit": int(creation.GetAttempts().GetLimit()),
		"request_id": id, "state": strings.TrimPrefix(creation.GetState().String(), "CREATION_STATE_"),
	})
	out.texts = forms(creation)
	return out
}

// named is the id itself, or for @name that field of the call named so.
func (r *run) named(id, field string) string {
	if name, isName := strings.CutPrefix(id, "@"); isName {
		id, _ = r.outcomes[name].fields[field].(string)
	}
	return id
}

func (r *run) read(ctx context.Context, client *userintent.Client, s step) outcome {
	requestID := r.named(s.RequestID, "request_id")
	key := userintent.ByRequestID(requestID)
	if s.UserIntentID != nil {
		key = userintent.ByUserIntentID(r.named(*s.UserIntentID, "user_intent_id"))
	}
	var options []userintent.CallOption
	if s.MaxTries > 0 {
		options = append(options, userintent.WithMaxTries(s.MaxTries))
	}
	if s.MaxAgeMs != 0 {
		options = append(options, userintent.WithMaxAge(time.Duration(s.MaxAgeMs)*time.Millisecond))
	}
	if s.AllowStale {
		options = append(options, userintent.WithAllowStale())
	}
	start := time.Now()
	response, err := client.GetUserIntent(ctx, key, options...)
	if err != nil {
		return failed(client, err, start)
	}
	out := outcome{client: client, fields: none(start)}
	maps.Copy(out.fields, intentFields(response.GetUserIntent()))
	maps.Copy(out.fields, map[string]any{
		"ok": true, "code": "OK", "request_id": requestID, "stale": response.GetStale(), "read_time": instant(response.GetReadTime()),
	})
	out.texts = append(forms(response), response.String())
	return out
}

func intentFields(intent *pb.UserIntent) map[string]any {
	return map[string]any{
		"user_intent_id": intent.GetId(), "user_id": intent.GetUserId(), "status": strings.TrimPrefix(intent.GetStatus().String(), "USER_INTENT_STATUS_"),
		"verification_type": strings.TrimPrefix(intent.GetVerificationType().String(), "VERIFICATION_TYPE_"), "status_time": instant(intent.GetStatusTime()),
	}
}

// instant is a time as text, seconds and nanoseconds; empty for none.
func instant(when *timestamppb.Timestamp) string {
	if when == nil {
		return ""
	}
	return fmt.Sprintf("%d.%09d", when.GetSeconds(), when.GetNanos())
}

func failed(client *userintent.Client, err error, start time.Time) outcome {
	out := outcome{client: client, fields: none(start), err: err, texts: forms(err)}
	var e *userintent.Error
	if !errors.As(err, &e) {
		out.fields["code"] = fmt.Sprintf("an error of type %T", err)
		return out
	}
	names := []any{}
	for _, violation := range e.Violations {
		names = append(names, violation.Field)
	}
	attempts := userintent.Attempts{}
	if e.Attempts != nil {
		attempts = *e.Attempts
	}
	maps.Copy(out.fields, map[string]any{
		"code": codeOf(e), "reason": string(e.Reason), "sent": string(e.Sent), "recovery": string(e.Recovery), "maybe_sent": e.MaybeSent(),
		"replayed": e.Replayed, "violations": names, "used_min": attempts.UsedMin, "used_max": attempts.UsedMax, "user_intent_id": e.UserIntentID,
		"unresolved_request_id": e.UnresolvedRequestID, "http_status": e.HTTPStatus, "request_id": e.RequestID, "tries": e.Tries,
		"not_repeated": string(e.NotRepeated),
	})
	if e.FinalStatus != 0 {
		out.fields["final_status"] = strings.TrimPrefix(e.FinalStatus.String(), "USER_INTENT_STATUS_")
	}
	if e.Retryable {
		out.fields["retry_after_ms"] = int(e.RetryAfter.Milliseconds())
	}
	return out
}

// codeOf is the canonical name of the code, as the library writes it.
func codeOf(e *userintent.Error) string {
	for _, attribute := range e.LogValue().Group() {
		if attribute.Key == "code" {
			return attribute.Value.String()
		}
	}
	return ""
}

func none(start time.Time) map[string]any {
	return map[string]any{
		"ok": false, "code": "", "reason": "", "sent": "", "recovery": "", "maybe_sent": false, "replayed": false, "violations": []any{}, "used_min": 0,
		"used_max": 0, "limit": 0, "user_intent_id": "", "unresolved_request_id": "", "http_status": 0, "request_id": "", "tries": 0, "retry_after_ms": -1,
		"elapsed_ms": int(time.Since(start).Milliseconds()), "state": "", "not_repeated": "", "status": "",
		"user_id": "", "verification_type": "", "status_time": "", "read_time": "", "stale": false, "url": "", "page": "", "final_status": "",
	}
}

// forms are the ways in which a value becomes text in a log.
func forms(value any) []string {
	var text strings.Builder
	slog.New(slog.NewTextHandler(&text, nil)).Info("", "value", value)
	return []string{fmt.Sprint(value), fmt.Sprintf("%+v", value), fmt.Sprintf("%#v", value), fmt.Sprintf("%s", value), text.String()}
}

// ended compares a call's result with what the step expects, and keeps it under the step's name.
func (r *run) ended(s step, out outcome) (outcome, error) {
	if s.Name != "" {
		r.outcomes[s.Name] = out
	}
	var expect map[string]any
	if err := json.Unmarshal(s.Expect, &expect); err != nil {
		return out, err
	}
	if err := r.compare(out.fields, expect); err != nil {
		return out, fmt.Errorf("%w (%v)", err, out.err)
	}
	if (s.Do == "create" || s.Do == "end" || s.Do == "repeat") && out.fields["request_id"] == "" {
		return out, errors.New("request_id is empty")
	}
	return out, r.checkTexts(out.texts)
}

// compare holds a result, or an event, to what is expected of it.
func (r *run) compare(fields, expect map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(expect)) {
		got, known := fields[name]
		if !known {
			return fmt.Errorf("no field %q", name)
		}
		want := expect[name]
		if text, isText := want.(string); isText && strings.HasPrefix(text, "@") {
			other, found := r.outcomes[text[1:]]
			if !found {
				return fmt.Errorf("no call %q", text[1:])
			}
			want = other.fields[name]
			if fmt.Sprint(got) != fmt.Sprint(want) {
				return fmt.Errorf("%s: expected %v of %s, got %v", name, want, text, got)
			}
			continue
		}
		if !holds(name, got, want) {
			return fmt.Errorf("%s: expected %v, got %v", name, want, got)
		}
	}
	return nil
}

func holds(name string, got, want any) bool {
	switch want := want.(type) {
	case string:
		if want == "*" {
			return got != "" && got != 0 && got != false && !reflect.DeepEqual(got, []any{})
		}
		return got == want
	case map[string]any:
		n, isNumber := got.(int)
		low, hasLow := want["min"].(float64)
		high, hasHigh := want["max"].(float64)
		return isNumber && (!hasLow || float64(n) >= low) && (!hasHigh || float64(n) <= high)
	case []any:
		if name != "violations" {
			return slices.ContainsFunc(want, func(one any) bool { return holds(name, got, one) })
		}
		a, b := sorted(got.([]any)), sorted(want)
		return slices.Equal(a, b) && len(slices.Compact(a)) == len(b)
	case float64:
		n, isNumber := got.(int)
		return isNumber && float64(n) == want
	default:
		return got == want
	}
}

func sorted(values []any) []string {
	var out []string
	for _, value := range values {
		out = append(out, fmt.Sprint(value))
	}
	slices.Sort(out)
	return out
}

func (r *run) checkTexts(texts []string) error {
	for _, text := range texts {
		for number, secret := range r.plan.NeverInText {
			if strings.Contains(text, secret) {
				return fmt.Errorf("a string form holds number %d of never_in_text", number)
			}
		}
	}
	return nil
}

func (r *run) storm(s step) error {
	client, err := r.client(s.Client)
	if err != nil {
		return err
	}
	const ok, unknown = "ok", "unknown"
	ends := make([]string, s.Calls)
	problems := make([]error, s.Calls)
	next := make(chan int)
	done := make(chan struct{})
	for range s.Concurrency {
		go func() {
			for i := range next {
				request, err := parse(s)
				if err != nil {
					problems[i] = err
					continue
				}
				request.Email = s.EmailPrefix + strconv.Itoa(i) + s.EmailSuffix
				out := create(context.Background(), client, request, nil)
				for n := 0; n < 200 && out.err != nil && again(out.fields); n++ {
					problems[i] = errors.Join(problems[i], r.checkTexts(out.texts))
					time.Sleep(50 * time.Millisecond)
					out = repeat(context.Background(), out)
				}
				problems[i] = errors.Join(problems[i], r.checkTexts(out.texts))
				switch {
				case out.err == nil:
					ends[i] = ok
				case out.fields["reason"] == "OUTCOME_UNKNOWN":
					ends[i] = unknown
				default:
					ends[i] = out.err.Error()
				}
			}
			done <- struct{}{}
		}()
	}
	for i := range s.Calls {
		next <- i
	}
	close(next)
	for range s.Concurrency {
		<-done
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	var summary struct {
		ByEmail map[string]struct{ Posts, Intents int } `json:"by_email"`
	}
	if err := fetch("GET", r.plan.Sandbox+"/accounting/summary", nil, &summary); err != nil {
		return err
	}
	oks := 0
	for i, end := range ends {
		account := summary.ByEmail[strings.ToLower(s.EmailPrefix+strconv.Itoa(i)+s.EmailSuffix)]
		switch {
		case end != ok && end != unknown:
			return fmt.Errorf("call %d ended otherwise: %s", i, end)
		case account.Posts > 1 || account.Intents > 1:
			return fmt.Errorf("call %d: %d posts, %d intents", i, account.Posts, account.Intents)
		case end == ok:
			oks++
			if account.Posts != 1 || account.Intents != 1 {
				return fmt.Errorf("call %d ended ok with %d posts, %d intents", i, account.Posts, account.Intents)
			}
		}
	}
	if oks < s.MinOK {
		return fmt.Errorf("ok: expected at least %d of %d, got %d", s.MinOK, s.Calls, oks)
	}
	return nil
}

func again(fields map[string]any) bool {
	return fields["maybe_sent"] == true && fields["reason"] == "" || fields["recovery"] == "RETRY_SAME_ID" || fields["reason"] == "REQUEST_IN_PROGRESS"
}
