//! What a TCP socket needs for control to overtake bulk all the way.

use std::io;
use std::os::fd::AsFd;

use socket2::SockRef;

/// How much may wait in the kernel that is not yet on its way. Without a limit the kernel of a
/// builder on a slow line takes megabytes, and a heartbeat has to wait behind them for half a
/// minute. Enough for one data frame, so that a fast line never runs dry.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 256 * 1024;

/// Small messages leave at once (`TCP_NODELAY`), and what is queued in the kernel stays short
/// (`TCP_NOTSENT_LOWAT`, see tcp(7)).
///
/// # Errors
/// When the socket is not a TCP socket or already closed.
pub fn tune(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT)?;
    Ok(())
}
