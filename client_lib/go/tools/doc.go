// Package tools pins the generators of ../userintentv1 in a module of its own, so that they are no dependency of the
// library. See scripts/generate-go.sh.
package tools
