// Command dump shows the log of a hashicorp/raft server that does not run, from its raft-boltdb file: a JSON object a line, {index, term, type, data}, with the
// SHA-256 of the data in hexadecimal.
//
//	dump -data DIRECTORY
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	boltdb "github.com/hashicorp/raft-boltdb/v2"

	"coterie.test/interop/lines"
)

func dump(directory string) error {
	store, err := boltdb.NewBoltStore(filepath.Join(directory, "raft.db"))
	if err != nil {
		return err
	}
	defer store.Close()
	first, err := store.FirstIndex()
	if err != nil {
		return err
	}
	last, err := store.LastIndex()
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for index := first; index <= last && last > 0; index++ {
		var entry raft.Log
		if err := store.GetLog(index, &entry); err != nil {
			return err
		}
		hash := sha256.Sum256(entry.Data)
		row := lines.Fields{"index": entry.Index, "term": entry.Term, "type": entry.Type, "data": hex.EncodeToString(hash[:])}
		if err := out.Encode(row); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	data := flag.String("data", "", "the server's directory")
	flag.Parse()
	if err := dump(*data); err != nil {
		lines.Die(err)
	}
}
