package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"
)

// How a webhook is written and signed.

// webhookForms: what the signature covers, and how the body is written.
var webhookForms = map[string]bool{
	"python":  true, // as Python's json.dumps writes it, signed as it is sent
	"raw":     true, // without white space and in UTF-8, signed as it is sent
	"compact": true, // sent as in raw, but what is signed is the text of json.dumps
}

// signature is the value of the header Astra-Verification.
func signature(secret string, text []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = mac.Write(text)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// writeWebhook gives the body to send and the text to sign, from any valid JSON.
func writeWebhook(text []byte, form string) (body, signed []byte) {
	dumped := rewriteJSON(text, true)
	if form == "python" {
		return dumped, dumped
	}
	body = rewriteJSON(text, false)
	if form == "compact" {
		return body, dumped
	}
	return body, body
}

// rewriteJSON writes a JSON text as json.dumps(value) does, members in the order of the text and repeated ones too; or, without python, as
// json.dumps(value, ensure_ascii=False, separators=(",", ":")). Numbers stay as they are. The text must be valid.
func rewriteJSON(text []byte, python bool) []byte {
	var out bytes.Buffer
	for at := skipSpace(text, 0); at < len(text); at = skipSpace(text, at) {
		switch c := text[at]; c {
		case '"':
			end := skipValue(text, at)
			value, _ := jsonString(text[at:end])
			writeJSONString(&out, value, python)
			at = end
			continue
		case ',', ':':
			out.WriteByte(c)
			if python {
				out.WriteByte(' ')
			}
		default:
			out.WriteByte(c)
		}
		at++
	}
	return out.Bytes()
}

var shortEscapes = map[rune]string{'"': `\"`, '\\': `\\`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '\b': `\b`, '\f': `\f`}

// writeJSONString escapes what json.dumps escapes; with ascii, everything outside space to ~.
func writeJSONString(out *bytes.Buffer, value string, ascii bool) {
	const hex = "0123456789abcdef"
	unit := func(u rune) {
		out.WriteString(`\u`)
		for shift := 12; shift >= 0; shift -= 4 {
			out.WriteByte(hex[u>>shift&0xf])
		}
	}
	out.WriteByte('"')
	for _, c := range value {
		switch short := shortEscapes[c]; {
		case short != "":
			out.WriteString(short)
		case c < ' ' || ascii && c > '~' && c < 0x10000:
			unit(c)
		case ascii && c >= 0x10000:
			unit(0xd800 + (c-0x10000)>>10)
			unit(0xdc00 + (c-0x10000)&0x3ff)
		default:
			out.WriteRune(c)
		}
	}
	out.WriteByte('"')
}

// objectWriter puts members together in the order of their arrival, repeated names too.
type objectWriter struct{ bytes.Buffer }

func (w *objectWriter) member(name string, value []byte) {
	if w.Len() == 0 {
		w.WriteByte('{')
	} else {
		w.WriteByte(',')
	}
	w.Write(quoted(name))
	w.WriteByte(':')
	w.Write(value)
}

func (w *objectWriter) object() []byte {
	if w.Len() == 0 {
		return []byte("{}")
	}
	return append(append([]byte(nil), w.Bytes()...), '}')
}

// isObject says whether the text is one JSON object in UTF-8.
func isObject(text json.RawMessage) bool {
	return utf8.Valid(text) && eachMember(text, func(string, []byte) {}) == nil
}
