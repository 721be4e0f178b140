"""The operator's listener, apart from the clients' one."""
