"""The pure arithmetic of a lease."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_redislock._lease.lease import Action, Lease, boot_time, drift


class TestDeadline:
    """Until when a lease is valid."""

    def test_is_before_the_servers(self):
        """The deadline counts from before the send, less one per cent and 2 ms."""
        lease = Lease(10.0, sent_at=100.0)
        assert lease.deadline == pytest.approx(109.898)
        assert lease.valid(109.897)
        assert not lease.valid(109.898)

    def test_remaining_is_never_negative(self):
        """After the deadline nothing remains."""
        assert Lease(1.0, sent_at=0.0).remaining(5.0) == 0.0

    def test_end_is_final(self):
        """A lease that was ended stays ended, whatever the clock says."""
        lease = Lease(10.0, sent_at=0.0)
        lease.end()
        assert not lease.valid(1.0)
        assert not lease.renewed(sent_at=1.0, now=1.1)
        assert lease.next_step(1.0).action is Action.LOST

    @given(
        duration=st.floats(0.5, 3600.0),
        delay=st.floats(0.0, 5.0),
        speed=st.floats(0.99, 1.0),
    )
    def test_ends_before_the_server_frees_the_lock(self, duration: float, delay: float, speed: float):
        """Whatever the way to the server takes, the holder's lease ends before the server's."""
        lease = Lease(duration, sent_at=0.0)
        server_frees_at = delay + round(duration * 1000) / 1000 * speed - 0.001
        assert lease.deadline <= server_frees_at + 1e-9


class TestSteps:
    """What the watchdog decides."""

    def test_renews_after_a_third(self):
        """Until a third of the lease has passed it waits, then it renews within a sixth."""
        lease = Lease(6.0, sent_at=0.0)
        assert lease.next_step(0.5).action is Action.WAIT
        assert lease.next_step(0.5).seconds == pytest.approx(1.5)
        step = lease.next_step(2.0)
        assert (step.action, step.seconds) == (Action.RENEW, 1.0)

    def test_an_attempt_never_passes_the_deadline(self):
        """Near the deadline an attempt has only what is left."""
        lease = Lease(6.0, sent_at=0.0)
        assert lease.next_step(lease.deadline - 0.1).seconds == pytest.approx(0.1)
        assert lease.retry_pause(lease.deadline - 0.001) == pytest.approx(0.001)

    def test_without_renewal_it_waits_for_the_end(self):
        """A lease that is not renewed is watched until its deadline."""
        lease = Lease(6.0, sent_at=0.0, renewing=False)
        assert lease.next_step(5.0).action is Action.WAIT
        assert lease.next_step(lease.deadline).action is Action.LOST

    def test_a_late_renewal_does_not_revive(self):
        """After a stall the deadline wins over a renewal that the server granted meanwhile."""
        lease = Lease(6.0, sent_at=0.0)
        assert not lease.renewed(sent_at=2.0, now=6.5)
        assert not lease.valid(2.5)

    def test_a_renewal_counts_from_its_send(self):
        """A renewal that took long leaves only what is left of it."""
        lease = Lease(6.0, sent_at=0.0)
        assert lease.renewed(sent_at=2.0, now=3.0)
        assert lease.deadline == pytest.approx(2.0 + 6.0 - drift(6.0))

    def test_the_clock_goes_on(self):
        """The clock of leases never goes back."""
        assert boot_time() <= boot_time()
