//! An HTTP server for tests, which answers what a function says.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Serves until the test's runtime ends; a request that gets `None` waits for its answer for ever.
/// Returns the endpoint.
pub async fn serve<A, B>(answer: A) -> String
where
    A: Fn(Request<Bytes>) -> Option<Response<B>> + Send + Sync + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.map(|body| body.to_bytes());
                    let answered =
                        body.ok().and_then(|body| answer(Request::from_parts(head, body)));
                    match answered {
                        Some(response) => Ok::<_, Infallible>(response),
                        None => std::future::pending().await,
                    }
                }
            });
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A connection that ends early is part of some scripts.
            tokio::spawn(serving);
        }
    });
    endpoint
}
