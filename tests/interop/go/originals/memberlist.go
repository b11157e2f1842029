package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"os"
	"time"

	"github.com/hashicorp/memberlist"

	"coterie.test/interop/lines"
)

const suspectMessage = 3

// member starts a member on 127.0.0.1 that finds a dead one within a second or two and forgets it after a while; port 0: any. Its push/pulls come only with joins.
func member(name string, port int, forgets time.Duration) (*memberlist.Memberlist, error) {
	config := memberlist.DefaultLANConfig()
	config.Name, config.BindAddr, config.BindPort, config.AdvertisePort = name, "127.0.0.1", port, port
	config.ProbeInterval, config.ProbeTimeout = 200*time.Millisecond, 100*time.Millisecond
	config.GossipInterval = 20 * time.Millisecond
	config.GossipToTheDeadTime = forgets
	config.PushPullInterval = 0
	config.LogOutput = os.Stderr
	return memberlist.Create(config)
}

func address(of *memberlist.Memberlist) string { return of.LocalNode().FullAddress().Addr }

func join(who, with *memberlist.Memberlist) error {
	_, err := who.Join([]string{address(with)})
	return err
}

// sees tells whether who has name among its members, which are those alive or suspected.
func sees(who *memberlist.Memberlist, name string) bool {
	for _, node := range who.Members() {
		if node.Name == name {
			return true
		}
	}
	return false
}

func group(forgets time.Duration) (a, b, c *memberlist.Memberlist, err error) {
	var three [3]*memberlist.Memberlist
	for number, name := range []string{"a", "b", "c"} {
		if three[number], err = member(name, 0, forgets); err != nil {
			return nil, nil, nil, err
		}
		if number > 0 {
			if err := join(three[number], three[0]); err != nil {
				return nil, nil, nil, err
			}
		}
	}
	err = within(patience, "three members everywhere", func() bool {
		for _, one := range three {
			if one.NumMembers() != 3 {
				return false
			}
		}
		return true
	})
	return three[0], three[1], three[2], err
}

// restart: a and b die and come back, in this order and at their addresses; c stays, and remembers a high incarnation of b. b joins with a, which knows nothing.
func restart() (lines.Fields, error) {
	a, b, c, err := group(time.Hour)
	if err != nil {
		return nil, err
	}
	for range 5 { // each raises its incarnation
		if err := b.UpdateNode(patience); err != nil {
			return nil, err
		}
	}
	ports := map[string]int{"a": int(a.LocalNode().Port), "b": int(b.LocalNode().Port)}
	for _, one := range []*memberlist.Memberlist{a, b} {
		if err := one.Shutdown(); err != nil {
			return nil, err
		}
	}
	if err := within(patience, "c finds a and b dead", func() bool { return c.NumMembers() == 1 }); err != nil {
		return nil, err
	}
	time.Sleep(2 * time.Second) // a hundred rounds of gossip: c has nothing left to tell of these deaths, which goes to the dead's addresses too
	if a, err = member("a", ports["a"], time.Hour); err != nil {
		return nil, err
	}
	if err := join(a, c); err != nil {
		return nil, err
	}
	if err := within(patience, "c has a again", func() bool { return sees(c, "a") }); err != nil {
		return nil, err
	}
	if b, err = member("b", ports["b"], time.Hour); err != nil {
		return nil, err
	}
	if err := join(b, a); err != nil {
		return nil, err
	}
	if err := within(patience, "a has b, and b has c", func() bool { return sees(a, "b") && sees(b, "c") }); err != nil {
		return nil, err
	}
	stays := within(5*time.Second, "c has b", func() bool { return sees(c, "b") }) != nil
	found := lines.Fields{"a_sees_b": sees(a, "b"), "b_sees_c": sees(b, "c"), "b_stays_dead_to_c": stays}
	if err := join(b, c); err != nil { // a push/pull between the two, which tells b of what is said
		return nil, err
	}
	found["back_after_push_pull"] = within(5*time.Second, "c has b", func() bool { return sees(c, "b") }) == nil
	return found, nil
}

// highest: somebody tells a that b is suspect, at the highest incarnation there is.
func highest() (lines.Fields, error) {
	const forgets = 12 * time.Second
	a, b, c, err := group(forgets)
	if err != nil {
		return nil, err
	}
	wire, err := net.Dial("udp", address(a))
	if err != nil {
		return nil, err
	}
	defer wire.Close()
	if _, err := wire.Write(suspicion("b", math.MaxUint32)); err != nil {
		return nil, err
	}
	gone := func() bool { return !sees(a, "b") && !sees(c, "b") }
	evicted := within(20*time.Second, "a and c give b up", gone) == nil
	found := lines.Fields{"evicted": evicted, "b_sees_both": sees(b, "a") && sees(b, "c")}
	for range 3 { // push/pulls, with which b hears of it and says the opposite
		if err := join(b, a); err != nil {
			return nil, err
		}
	}
	found["back_after_push_pulls"] = within(5*time.Second, "a or c has b", func() bool { return !gone() }) == nil
	var refused error // a join a tenth of a second, until long after a and c have forgotten b
	found["back_after_it_was_forgotten"] = within(forgets+7*time.Second, "a or c has b", func() bool {
		time.Sleep(100 * time.Millisecond)
		if err := join(b, a); err != nil {
			refused = err
		}
		return !gone()
	}) == nil
	if refused != nil {
		return nil, refused
	}
	return found, nil
}

// suspicion is a suspect message: a map of three in msgpack after the byte that says what it is.
func suspicion(name string, incarnation uint32) []byte {
	text := func(into []byte, word string) []byte {
		if len(word) > 31 {
			panic(fmt.Sprintf("too long for a fixstr: %q", word))
		}
		return append(append(into, 0xa0|byte(len(word))), word...)
	}
	message := text([]byte{suspectMessage, 0x83}, "Incarnation")
	message = binary.BigEndian.AppendUint32(append(message, 0xce), incarnation)
	message = text(text(message, "Node"), name)
	return text(text(message, "From"), "stranger")
}
