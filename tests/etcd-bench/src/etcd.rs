//! A client of etcd: Put and Range of its `KV` service, and nothing else.

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::load::{Connection, Failure};

/// `etcdserverpb.PutRequest`, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.RangeRequest`, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bool, tag = "7")]
    serializable: bool,
}

/// `mvccpb.KeyValue`, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

/// `etcdserverpb.RangeResponse`, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

/// `etcdserverpb.PutResponse`: only whether there is one.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";

/// One client.
pub struct Client {
    grpc: Grpc<Channel>,
    serializable: bool,
}

/// So many clients, spread over the endpoints. They share `conns` connections, or have one each if
/// that is 0. A connection is made when it is first used.
///
/// # Errors
/// If an endpoint is no URL.
pub fn clients(
    endpoints: &[String],
    count: usize,
    conns: usize,
    serializable: bool,
) -> Result<Vec<Client>, String> {
    let conns = if conns == 0 { count } else { conns };
    let mut channels = Vec::new();
    for endpoint in endpoints.iter().cycle().take(conns) {
        let endpoint = Endpoint::from_shared(endpoint.clone());
        let endpoint = endpoint.map_err(|error| error.to_string())?.tcp_nodelay(true);
        channels.push(endpoint.connect_lazy());
    }
    let client = |channel: &Channel| Client { grpc: Grpc::new(channel.clone()), serializable };
    Ok(channels.iter().cycle().take(count).map(client).collect())
}

impl Client {
    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Failure>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await.map_err(|_| Failure::NotSent)?;
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, A>::default();
        let answer = self.grpc.unary(Request::new(request), path, codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| failure(&status))
    }
}

fn failure(status: &Status) -> Failure {
    match status.code() {
        Code::InvalidArgument | Code::ResourceExhausted => {
            Failure::Refused(status.code().to_string())
        }
        // Even "unavailable" may stand for a proposal that is still on its way.
        _ => Failure::Unknown,
    }
}

impl Connection for Client {
    async fn put(&mut self, key: &str, value: &[u8]) -> Result<(), Failure> {
        let request = PutRequest { key: key.into(), value: value.into() };
        self.call::<_, PutResponse>(PUT, request).await.map(|_| ())
    }

    async fn get(&mut self, key: &str) -> Result<(), Failure> {
        let request = RangeRequest { key: key.into(), serializable: self.serializable };
        self.call::<_, RangeResponse>(RANGE, request).await.map(|_| ())
    }

    fn reset(&mut self) {
        // A channel drops a broken connection and makes a new one by itself.
    }
}
