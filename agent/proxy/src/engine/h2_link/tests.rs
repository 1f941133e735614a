//! One turn of the loop is one write.
#![allow(clippy::unwrap_used)]
use http::Request;
use tokio::io::ReadBuf;

use super::*;

/// Remembers each write; there is nothing to read.
#[derive(Clone, Default)]
struct Writes(Rc<RefCell<Vec<Vec<u8>>>>);

impl AsyncRead for Writes {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Writes {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.to_vec()).collect();
        let length = all.len();
        self.0.borrow_mut().push(all);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

async fn turn(driver: &mut Driver<Writes>) {
    let heard = Cell::new(false);
    let polled = poll_fn(|cx| Poll::Ready(driver.poll(cx, &mut drop, &heard))).await;
    assert!(polled.is_pending());
}

#[tokio::test]
async fn a_turn_is_one_write() {
    let writes = Writes::default();
    let connection = Connection::client(mesh_h2::Config::default());
    let (mut driver, link) = Driver::new(writes.clone(), connection);
    let (head, ()) = Request::new(()).into_parts();
    let ask = || {
        link.with(|it| it.open(&head, true, Ends::default()))
            .unwrap()
    };
    ask();
    turn(&mut driver).await;
    ask();
    assert!(writes.0.borrow().is_empty());
    turn(&mut driver).await;
    assert_eq!(writes.0.borrow().len(), 1);
    assert!(!link.connection.borrow_mut().output().has_buffer());
    ask();
    for _ in 0..2 {
        turn(&mut driver).await;
    }
    assert_eq!(writes.0.borrow().len(), 2);
}

#[tokio::test]
async fn much_does_not_wait() {
    let writes = Writes::default();
    let mut connection = Connection::client(mesh_h2::Config::default());
    // Its server has large windows.
    let window = [0x7f, 0, 0, 0];
    let settings = [&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4][..], &window].concat();
    let update = [&[0, 0, 4, 8, 0, 0, 0, 0, 0][..], &window].concat();
    let said = [settings, update].concat();
    assert!(
        connection
            .receive(&mut Bytes::from(said))
            .unwrap()
            .is_none()
    );
    let (mut driver, link) = Driver::new(writes.clone(), connection);
    let (head, ()) = Request::new(()).into_parts();
    let key = link
        .with(|it| it.open(&head, false, Ends::default()))
        .unwrap();
    link.with(|it| it.send(key, Bytes::from(vec![7; ENOUGH]), false));
    turn(&mut driver).await;
    assert!(writes.0.borrow().concat().len() > ENOUGH);
}
