package userintent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	pb "example.com/userintent/userintentv1"
)

const canary = "zorblatt"

func personal(field protoreflect.FieldDescriptor) bool {
	return proto.GetExtension(field.Options().(*descriptorpb.FieldOptions), pb.E_PersonalData).(bool)
}

// filled has every field set: personal ones hold the canary, others show that they are there.
func filled(t *testing.T) (request *pb.CreateUserIntentRequest, shown []string) {
	t.Helper()
	request = &pb.CreateUserIntentRequest{}
	m := request.ProtoReflect()
	fields, secret := m.Descriptor().Fields(), 0
	for i := 0; i < fields.Len(); i++ {
		field := fields.Get(i)
		shown = append(shown, string(field.Name())+":")
		switch {
		case field.IsMap():
			m.Mutable(field).Map().Set(protoreflect.ValueOfString(canary+"-key").MapKey(), protoreflect.ValueOfString(canary+"-value"))
		case field.Kind() == protoreflect.StringKind && personal(field):
			m.Set(field, protoreflect.ValueOfString(canary+string(field.Name())))
		case field.Kind() == protoreflect.StringKind:
			m.Set(field, protoreflect.ValueOfString("open-"+string(field.Name())))
			shown = append(shown, "open-"+string(field.Name()))
		case field.Kind() == protoreflect.BoolKind:
			m.Set(field, protoreflect.ValueOfBool(true))
			shown = append(shown, string(field.Name())+":true")
		case field.Kind() == protoreflect.EnumKind:
			m.Set(field, protoreflect.ValueOfEnum(1))
			shown = append(shown, "VERIFICATION_TYPE_VERIFIED")
		default:
			t.Fatalf("teach this test to set %s", field.Name())
		}
		if personal(field) {
			secret++
		}
	}
	if secret < 16 {
		t.Fatalf("only %d personal fields", secret)
	}
	m.SetUnknown([]byte("\xb2\x01\x08" + canary)) // field 22, a string
	return request, append(shown, "<redacted>", "<unknown fields>")
}

func TestRequestsPrintNoPersonalData(t *testing.T) {
	request, shown := filled(t)
	var text, js bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("x", "request", request)
	slog.New(slog.NewJSONHandler(&js, nil)).Info("x", "request", request)
	forms := map[string]string{
		"String": request.String(), "GoString": request.GoString(), "Sprint": fmt.Sprint(request), "Errorf": fmt.Errorf("%v", request).Error(),
		"slog text": text.String(), "slog json": js.String(), "in a slice": fmt.Sprintf("%v", []*pb.CreateUserIntentRequest{request}),
	}
	// Not %w, which fmt takes for errors only and go vet refuses for anything else.
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10v", "%t"} {
		forms[verb] = fmt.Sprintf(verb, request)
	}
	for name, form := range forms {
		if strings.Contains(form, canary) || strings.Contains(strings.ToLower(form), fmt.Sprintf("%x", canary)) {
			t.Errorf("%s holds personal data", name)
		}
		for _, want := range shown {
			if !strings.Contains(form, want) {
				t.Errorf("%s does not show %s: %s", name, want, form)
			}
		}
	}
	for name, form := range map[string]string{
		"in a struct": fmt.Sprintf("%+v %#v", struct{ R *pb.CreateUserIntentRequest }{request}, struct{ r *pb.CreateUserIntentRequest }{request}),
		"nil":         fmt.Sprintf("%v %+v %#v", (*pb.CreateUserIntentRequest)(nil), (*pb.CreateUserIntentRequest)(nil), (*pb.CreateUserIntentRequest)(nil)),
		"empty":       fmt.Sprintf("%v", &pb.CreateUserIntentRequest{VerificationType: 77}),
	} {
		if strings.Contains(form, canary) || strings.Contains(form, "PANIC") {
			t.Errorf("%s: %s", name, form)
		}
	}
}

// Every message that holds personal data, itself or further in, needs the methods of userintentv1/redact.go.
func TestEveryMessageWithPersonalDataIsRedacted(t *testing.T) {
	var holds func(protoreflect.MessageDescriptor, map[protoreflect.FullName]bool) bool
	holds = func(message protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
		if seen[message.FullName()] {
			return false
		}
		seen[message.FullName()] = true
		for i := 0; i < message.Fields().Len(); i++ {
			field := message.Fields().Get(i)
			if personal(field) || field.Message() != nil && holds(field.Message(), seen) {
				return true
			}
		}
		return false
	}
	found := 0
	protoregistry.GlobalTypes.RangeMessages(func(kind protoreflect.MessageType) bool {
		if kind.Descriptor().ParentFile().Package() != "userintent.v1" || kind.Descriptor().IsMapEntry() || !holds(kind.Descriptor(), map[protoreflect.FullName]bool{}) {
			return true
		}
		found++
		message := kind.New().Interface()
		_, formats := message.(fmt.Formatter)
		_, goes := message.(fmt.GoStringer)
		_, logs := message.(slog.LogValuer)
		if !formats || !goes || !logs {
			t.Errorf("%s: Format %v, GoString %v, LogValue %v", kind.Descriptor().FullName(), formats, goes, logs)
		}
		return true
	})
	if found == 0 {
		t.Error("no message holds personal data")
	}
}

func TestErrorsPrintNoPersonalData(t *testing.T) {
	request, _ := filled(t)
	request.RequestId = "open"
	for name, answers := range map[string]answer{"of the gateway": {code: codes.Unavailable}, "of the encoder": ok} {
		_, dialer := serve(t, answers)
		if name == "of the encoder" {
			request.FirstName = canary + "\xff"
		}
		_, err := dial(t, dialer).CreateUserIntent(context.Background(), request)
		e := failure(t, err)
		js, jsErr := json.Marshal(e)
		if jsErr != nil {
			t.Fatal(jsErr)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "error", err)
		for form, text := range map[string]string{
			"Error": err.Error(), "%+v": fmt.Sprintf("%+v", err), "%#v": fmt.Sprintf("%#v", err), "value": fmt.Sprintf("%+v %#v", *e, *e), "json": string(js), "slog": log.String(),
			"cause": fmt.Sprintf("%+v", e.Unwrap()),
		} {
			if strings.Contains(text, canary) {
				t.Errorf("%s of an error %s holds personal data", form, name)
			}
		}
	}
}
