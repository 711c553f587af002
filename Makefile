# make demo      set up everything and run a demo line on this machine (ARGS="--seconds 60 --json demo.json")
# make test      set up everything and run all checks and all tests (ARGS="-k wire")
# make check     the static checks and the fast tests
# make lock      newer packages into the locks

.PHONY: demo test check setup lock

demo:
	@deploy/setup.sh demo
	.venv/bin/sightline demo $(ARGS)

test:
	@deploy/setup.sh test
	@deploy/check.sh $(ARGS)

check: setup
	@deploy/check.sh -m "not model and not process" $(ARGS)

setup:
	@deploy/setup.sh

lock:
	@deploy/lock.sh
