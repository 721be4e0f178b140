"""One request from decision to answer: `decide` is synchronous policy, `fulfil` satisfies what it needs."""
