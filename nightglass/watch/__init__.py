"""The resident loop: sensors to ledger to groups to an executor, with leases, a breaker and due stages."""
