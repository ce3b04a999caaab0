package userintentv1

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// This file is written by hand; it is what keeps personal data out of logs. Which fields are personal is said by the
// option personal_data of the proto file and by nothing here. The generated String methods call redacted, too
// (scripts/generate-go.sh sees to it). To encode a message as text on purpose, use protojson or prototext.

const redactedValue = "<redacted>"

// redacted is the text of a message on one line: the names of all fields that are set, and the values of those that are
// not personal. Of unknown fields only their presence is told, because nobody knows what they hold.
func redacted(m proto.Message) string {
	var b strings.Builder
	writeMessage(&b, m.ProtoReflect())
	return b.String()
}

func writeMessage(b *strings.Builder, m protoreflect.Message) {
	separator := ""
	fields := m.Descriptor().Fields()
	for i := 0; i < fields.Len(); i++ { // not Range: its order changes from call to call
		field := fields.Get(i)
		if !m.Has(field) {
			continue
		}
		b.WriteString(separator)
		separator = " "
		b.WriteString(string(field.Name()))
		b.WriteByte(':')
		if isPersonal(field) {
			b.WriteString(redactedValue)
			continue
		}
		value := m.Get(field)
		switch {
		case field.IsMap():
			b.WriteByte('{')
			next := ""
			value.Map().Range(func(key protoreflect.MapKey, entry protoreflect.Value) bool {
				b.WriteString(next)
				next = " "
				writeValue(b, field.MapKey(), key.Value())
				b.WriteByte(':')
				writeValue(b, field.MapValue(), entry)
				return true
			})
			b.WriteByte('}')
		case field.IsList():
			b.WriteByte('[')
			for j := 0; j < value.List().Len(); j++ {
				if j > 0 {
					b.WriteByte(' ')
				}
				writeValue(b, field, value.List().Get(j))
			}
			b.WriteByte(']')
		default:
			writeValue(b, field, value)
		}
	}
	if len(m.GetUnknown()) > 0 {
		b.WriteString(separator)
		b.WriteString("<unknown fields>")
	}
}

func writeValue(b *strings.Builder, field protoreflect.FieldDescriptor, value protoreflect.Value) {
	switch field.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		b.WriteByte('{')
		writeMessage(b, value.Message())
		b.WriteByte('}')
	case protoreflect.EnumKind:
		if known := field.Enum().Values().ByNumber(value.Enum()); known != nil {
			b.WriteString(string(known.Name()))
		} else {
			b.WriteString(strconv.Itoa(int(value.Enum())))
		}
	case protoreflect.StringKind:
		b.WriteString(strconv.Quote(value.String()))
	case protoreflect.BytesKind:
		b.WriteString(strconv.Quote(string(value.Bytes())))
	default:
		b.WriteString(value.String())
	}
}

func isPersonal(field protoreflect.FieldDescriptor) bool {
	personal, _ := proto.GetExtension(field.Options(), E_PersonalData).(bool)
	return personal
}

// Format writes the request without personal data, whatever the verb: %v, %+v, %#v, %s, %q, and verbs of other types.
func (x *CreateUserIntentRequest) Format(f fmt.State, verb rune) {
	text := redacted(x)
	switch {
	case verb == 'q':
		text = strconv.Quote(text)
	case verb == 'v' && f.Flag('#'):
		text = x.GoString()
	}
	_, _ = io.WriteString(f, text)
}

// GoString is the request without personal data.
func (x *CreateUserIntentRequest) GoString() string {
	return "&userintentv1.CreateUserIntentRequest{" + redacted(x) + "}"
}

// LogValue is the request without personal data, for log/slog.
func (x *CreateUserIntentRequest) LogValue() slog.Value {
	return slog.StringValue(redacted(x))
}
