"""The clients' side: the aiohttp server, its limits, and how replies are written."""
