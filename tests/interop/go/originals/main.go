// Command originals brings hashicorp/raft and hashicorp/memberlist, all nodes in one process, into the situations that docs/wounds.md tells of, and prints
// what they did as one JSON object.
//
//	originals hang | diverged | slow | restart | highest
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"coterie.test/interop/lines"
)

const patience = 30 * time.Second // for what is sure to come, on a machine that is busy

var situations = map[string]func() (lines.Fields, error){
	"hang":     hang,
	"diverged": diverged,
	"slow":     slow,
	"restart":  restart,
	"highest":  highest,
}

// within waits until a condition holds.
func within(patience time.Duration, what string, holds func() bool) error {
	for end := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("not within %v: %s", patience, what)
		}
	}
	return nil
}

func main() {
	if len(os.Args) != 2 || situations[os.Args[1]] == nil {
		lines.Die(fmt.Errorf("one of hang, diverged, slow, restart, highest is wanted, not %q", os.Args[1:]))
	}
	found, err := situations[os.Args[1]]()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(found)
	}
	if err != nil {
		lines.Die(err)
	}
}
