//! Unix sockets that let in only whom they should: by mode, by group, and by the uid that the kernel names.

use crate::config::SocketConfig;
use crate::grants::Peer;
use futures::Stream;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::server::Connected;

/// Bytes of the preface.
const PREFACE: usize = 24;
/// A peer that has not said them by then is not going to.
const GREETING: std::time::Duration = std::time::Duration::from_secs(5);

/// The most connections of one socket, whatever the limit on open files is.
const MOST: usize = 4_096;

/// Binds the socket. A stale one of a former run is replaced; one that somebody listens on is not.
///
/// # Errors
/// [`io::Error`], with what to do in its text where it is known.
pub fn bind(config: &SocketConfig) -> io::Result<UnixListener> {
    match fs::symlink_metadata(&config.path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other("something that is no socket stands at its path; move it away"));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(&config.path).is_ok() => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another resolver listens there already"));
        }
        Ok(_) => fs::remove_file(&config.path)?,
        Err(_) => {}
    }
    // Bound under another name and renamed when mode and group are right, so that nobody connects before.
    let unready = config.path.with_extension(format!("{}", std::process::id()));
    let _ = fs::remove_file(&unready);
    let listener = UnixListener::bind(&unready)?;
    let finish = || {
        fs::set_permissions(&unready, fs::Permissions::from_mode(config.mode))?;
        if let Some(group) = config.group {
            std::os::unix::fs::chown(&unready, None, Some(group))?;
        }
        fs::rename(&unready, &config.path)
    };
    finish().inspect_err(|_| drop(fs::remove_file(&unready)))?;
    Ok(listener)
}

/// A connection of a peer that was let in.
#[derive(Debug)]
pub struct Admitted {
    stream: UnixStream,
    peer: Peer,
    /// Until the peer has said something.
    greeting: Option<Greeting>,
    /// One of those that are open.
    _open: Arc<()>,
}

/// What a peer still has to say, and until when: the preface of HTTP/2 (RFC 9113, section 3.4). After it the server's
/// own pings find out who is gone.
#[derive(Debug)]
struct Greeting {
    left: usize,
    deadline: Pin<Box<tokio::time::Sleep>>,
}

impl Greeting {
    fn new() -> Self {
        Self { left: PREFACE, deadline: Box::pin(tokio::time::sleep(GREETING)) }
    }
}

impl Connected for Admitted {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Admitted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        let Some(greeting) = &mut own.greeting else { return Pin::new(&mut own.stream).poll_read(cx, buf) };
        if greeting.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut own.stream).poll_read(cx, buf))?;
        greeting.left = greeting.left.saturating_sub(buf.filled().len() - before);
        if greeting.left == 0 {
            own.greeting = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    /// Without it HTTP/2 would copy larger pieces of an answer into a buffer that it keeps.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How many connections may be open on one socket: so few that all sockets together leave half of the process's file
/// descriptors for backends, audit and state. Envoy has one for each of its threads.
fn most() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(MOST, |limit| usize::try_from(limit / 6).unwrap_or(MOST)).min(MOST)
}

/// Accepts on the listener, and closes whoever is not allowed, or one too many, before a byte is read.
pub fn incoming(listener: UnixListener, allowed_uids: Vec<u32>, refused: Arc<dyn Fn() + Send + Sync>) -> Incoming {
    Incoming { listener, allowed_uids, refused, open: Arc::default(), backoff: None }
}

/// The connections that were let in.
pub struct Incoming {
    listener: UnixListener,
    allowed_uids: Vec<u32>,
    refused: Arc<dyn Fn() + Send + Sync>,
    /// Shared by the connections that are open.
    open: Arc<()>,
    /// Set while the process is out of file descriptors, so that accepting does not spin.
    backoff: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Stream for Incoming {
    type Item = io::Result<Admitted>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(backoff) = &mut self.backoff {
                std::task::ready!(backoff.as_mut().poll(cx));
                self.backoff = None;
            }
            let stream = match std::task::ready!(self.listener.poll_accept(cx)) {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.backoff = Some(Box::pin(tokio::time::sleep(std::time::Duration::from_millis(50))));
                    continue;
                }
            };
            let Ok(credentials) = stream.peer_cred() else { continue };
            let peer = Peer { uid: credentials.uid(), pid: credentials.pid().unwrap_or(0) };
            if self.allowed_uids.contains(&peer.uid) {
                let open = Arc::clone(&self.open);
                if Arc::strong_count(&open) - 2 < most() {
                    let greeting = Some(Greeting::new());
                    return Poll::Ready(Some(Ok(Admitted { stream, peer, greeting, _open: open })));
                }
                (self.refused)();
                tracing::warn!(
                    pid = peer.pid,
                    "a connection was turned away: as many are open on this socket as the limit on open files allows; raise RLIMIT_NOFILE"
                );
                continue;
            }
            (self.refused)();
            tracing::warn!(
                uid = peer.uid,
                pid = peer.pid,
                "a process that is not allowed on this socket was turned away; allowed_uids names those that are"
            );
        }
    }
}

/// Removes the socket at the end of a run.
#[derive(Debug)]
pub struct Unlink(pub PathBuf);

impl Drop for Unlink {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::AsyncReadExt as _;

    fn config(path: PathBuf) -> SocketConfig {
        SocketConfig { path, mode: 0o600, group: None, allowed_uids: vec![rustix::process::geteuid().as_raw()] }
    }

    #[tokio::test]
    async fn a_wrong_uid_is_closed_and_the_right_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path().join("s"));
        let refused = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&refused);
        let listener = bind(&config).unwrap();
        assert_eq!(fs::metadata(&config.path).unwrap().permissions().mode() & 0o777, 0o600);
        let other = config.allowed_uids[0] + 1;
        let mut closed = incoming(
            listener,
            vec![other],
            Arc::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            }),
        );
        let accepting = tokio::spawn(async move { closed.next().await });
        let mut client = UnixStream::connect(&config.path).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(refused.load(Ordering::SeqCst), 1);
        accepting.abort();
        let _ = accepting.await;

        let mut open = incoming(bind(&config).unwrap(), config.allowed_uids.clone(), Arc::new(|| ()));
        let _client = UnixStream::connect(&config.path).await.unwrap();
        let admitted = open.next().await.unwrap().unwrap();
        assert_eq!(admitted.connect_info().pid, i32::try_from(std::process::id()).unwrap());
    }

    #[tokio::test]
    async fn a_live_socket_is_not_taken_and_a_file_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path().join("s"));
        let _first = bind(&config).unwrap();
        assert_eq!(bind(&config).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let file = super::tests::config(folder.path().join("file"));
        fs::write(&file.path, "x").unwrap();
        assert!(bind(&file).is_err() && file.path.exists());
    }
}
