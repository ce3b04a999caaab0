package userintent

import "sync"

// In tenths of a token, so that the sums are exact.
const (
	budgetCapacity = 100
	budgetRepeat   = 10
	budgetSuccess  = 1
)

// budget is the token bucket of one client: automatic repeats stay few beside the calls that succeed, so they cannot
// keep an outage going. Any goroutine may use it.
type budget struct {
	mu     sync.Mutex
	tokens int
}

func newBudget() *budget { return &budget{tokens: budgetCapacity} }

// take pays for one repeat; false: there is not enough left for a whole one.
func (b *budget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tokens < budgetRepeat {
		return false
	}
	b.tokens -= budgetRepeat
	return true
}

func (b *budget) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(b.tokens+budgetSuccess, budgetCapacity)
}
