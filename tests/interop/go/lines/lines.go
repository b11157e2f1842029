// Package lines is how a test drives a Go peer: a JSON object a line on standard input, a JSON object a line on standard output.
//
// A command is {"do": name, "id": n, ...}; its answer is {"event": "answer", "id": n, "error": "" or why not, ...}. Everything else that
// is written is an event. Commands run beside one another, so an answer may overtake another. The process ends when standard input does, so that no
// peer outlives its test.
package lines

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

// Fields are the members of one JSON object.
type Fields map[string]any

// Handler runs one command; what it returns goes into the answer.
type Handler func(command json.RawMessage) (Fields, error)

var out = struct {
	sync.Mutex
	*json.Encoder
}{Encoder: json.NewEncoder(os.Stdout)}

func write(fields Fields) {
	out.Lock()
	defer out.Unlock()
	if err := out.Encode(fields); err != nil {
		Die(fmt.Errorf("nobody reads standard output: %w", err))
	}
}

// Event writes an event. Safe from any goroutine.
func Event(name string, fields Fields) {
	whole := Fields{"event": name}
	for key, value := range fields {
		whole[key] = value
	}
	write(whole)
}

// Die ends the process with a reason.
func Die(err error) {
	fmt.Fprintln(os.Stderr, "fatal:", err)
	os.Exit(1)
}

// Serve runs commands until standard input ends.
func Serve(handlers map[string]Handler) {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		line := append(json.RawMessage(nil), in.Bytes()...)
		var head struct {
			Do string
			ID int
		}
		if err := json.Unmarshal(line, &head); err != nil {
			Die(fmt.Errorf("a command that is no JSON object: %w", err))
		}
		handler, known := handlers[head.Do]
		if !known {
			Die(fmt.Errorf("no such command: %q", head.Do))
		}
		go func() {
			fields, err := handler(line)
			answer := Fields{"error": "", "id": head.ID}
			for key, value := range fields {
				answer[key] = value
			}
			if err != nil {
				answer["error"] = err.Error()
			}
			Event("answer", answer)
		}()
	}
	if err := in.Err(); err != nil {
		Die(err)
	}
}

// Take decodes a command into its own form.
func Take[T any](run func(T) (Fields, error)) Handler {
	return func(command json.RawMessage) (Fields, error) {
		var form T
		if err := json.Unmarshal(command, &form); err != nil {
			return nil, err
		}
		return run(form)
	}
}
