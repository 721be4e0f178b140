"""`python -m gateway.workers` is one worker; what it does without is settled before it imports the rest."""

from gateway.lean import begin

begin()

from gateway.workers.worker import main  # noqa: E402

main()
