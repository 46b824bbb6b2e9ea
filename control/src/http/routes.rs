//! The one table of endpoints, and how a request finds its row.
//!
//! The control plane's router, the description at `/v1/openapi.json` and what a gateway knows of
//! paths are all made from it.

mod table;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::pin::Pin;

use axum::extract::Request;
use axum::response::Response;
use freshet_proto::ids::TenantId;
use freshet_proto::principal::Principal;
use http::Method;

use crate::plane::ControlPlane;
pub(super) use table::ENDPOINTS;

/// What stands at a method and a path.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// This endpoint. HEAD finds what GET does.
    Known(&'static Endpoint),
    /// The path takes other methods.
    WrongMethod {
        /// Which, as `Allow` names them.
        allow: String,
    },
    /// Nothing is at this path.
    Unknown,
}

/// One endpoint: who answers it, who may ask, what it takes, and how it is described.
#[derive(Debug)]
pub struct Endpoint {
    method: Method,
    /// At most one segment of it is a parameter, `{name}`, which may have a literal end.
    path: &'static str,
    access: Access,
    payload: Payload,
    /// None: the gateway answers itself.
    serve: Option<Serve>,
    about: About,
}

/// Whose requests an endpoint answers. A platform administrator may do what each tenant may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone's, without a key.
    Public,
    /// Who may read the tenant.
    Read,
    /// Who may write the tenant's configuration.
    Write,
    /// Who may change the tenant's environments, sets and keys.
    Admin,
    /// Who may change what belongs to no tenant.
    Platform,
    /// A gateway's.
    Gateway,
    /// Who may hand over change events.
    Events,
}

/// What an endpoint reads of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing.
    Nothing,
    /// One JSON document of the usual size.
    Document,
    /// One JSON document of the size of an import.
    Import,
    /// Change events, one a line.
    Events,
}

/// What only the description says.
#[derive(Debug)]
pub(super) struct About {
    pub(super) summary: &'static str,
    /// Parameters of the query: a name and what it says. A `!` before the name: it is needed.
    pub(super) query: &'static [(&'static str, &'static str)],
    /// The schema of the body.
    pub(super) takes: Option<&'static str>,
    /// The status of success, and the schema of its document.
    pub(super) answer: (u16, Option<&'static str>),
}

/// Answers a request. Each row has its own, made from a handler by the table.
pub(super) type Serve = fn(Request, ControlPlane) -> Pin<Box<dyn Future<Output = Response> + Send>>;

/// The endpoint of a method and a path (without a query).
///
/// Cost: a walk of the table, which has some forty rows; allocates only for a wrong method.
pub fn find(method: &Method, path: &str) -> Lookup {
    let rows = ENDPOINTS.iter();
    let nearest = rows
        .filter(|row| row.captured(path).is_some())
        .max_by_key(|row| row.literal_bytes());
    let Some(nearest) = nearest else {
        return Lookup::Unknown;
    };
    let wanted = if *method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let mut rows = ENDPOINTS.iter().filter(|row| row.path == nearest.path);
    match rows.clone().find(|row| row.method == *wanted) {
        Some(row) => Lookup::Known(row),
        None => Lookup::WrongMethod {
            allow: allow(&mut rows),
        },
    }
}

impl Endpoint {
    /// Its method.
    pub const fn method(&self) -> &Method {
        &self.method
    }

    /// Its path, with the name of a parameter in braces.
    pub const fn path(&self) -> &'static str {
        self.path
    }

    /// Who may ask.
    pub const fn access(&self) -> Access {
        self.access
    }

    /// What it reads of a body.
    pub const fn payload(&self) -> Payload {
        self.payload
    }

    /// Whether a gateway answers it itself; the control plane answers all others.
    pub const fn is_of_gateway(&self) -> bool {
        self.serve.is_none()
    }

    pub(super) const fn serve(&self) -> Option<Serve> {
        self.serve
    }

    pub(super) const fn about(&self) -> &About {
        &self.about
    }

    /// The name of its parameter.
    pub(super) fn parameter(&self) -> Option<&'static str> {
        let (_, rest) = self.path.split_once('{')?;
        Some(rest.split_once('}').map_or(rest, |(name, _)| name))
    }

    /// What `path` says for the parameter, decoded. None: what it holds is not text.
    pub(super) fn argument(&self, path: &str) -> Option<String> {
        let decoded = percent_decoded(self.captured(path)?);
        String::from_utf8(decoded.into_owned()).ok()
    }

    /// What of `path` stands for the parameter, empty without one. None: it is another path.
    fn captured<'a>(&self, path: &'a str) -> Option<&'a str> {
        let Some((before, after)) = self.around() else {
            return (path == self.path).then_some("");
        };
        let segment = path.strip_prefix(before)?.strip_suffix(after)?;
        (!segment.is_empty() && !segment.contains('/')).then_some(segment)
    }

    /// The path that fits with more of its own text is the more specific one.
    fn literal_bytes(&self) -> usize {
        self.around().map_or(self.path.len(), |(before, after)| {
            before.len() + after.len()
        })
    }

    /// The text before the parameter and behind it.
    fn around(&self) -> Option<(&'static str, &'static str)> {
        let (before, rest) = self.path.split_once('{')?;
        Some((before, rest.split_once('}')?.1))
    }
}

impl Access {
    /// Whether `principal` may ask in the name of `tenant`: its own, or the one that `X-Tenant-Id`
    /// names.
    pub fn allows(self, principal: &Principal, tenant: &TenantId) -> bool {
        let is_platform = principal.is_platform();
        match self {
            Self::Public => true,
            Self::Read => is_platform || principal.may_read(tenant),
            Self::Write => is_platform || principal.may_write(tenant),
            Self::Admin => {
                is_platform || (principal.tenant == *tenant && principal.may_administer(tenant))
            }
            Self::Platform => is_platform,
            Self::Gateway => principal.is_gateway(),
            Self::Events => principal.may_push_events(),
        }
    }

    /// The scope that is needed, for people; `tenant` stands where the tenant's name does. None: no
    /// key is.
    pub fn scope(self, tenant: &str) -> Option<String> {
        Some(match self {
            Self::Public => return None,
            Self::Read => format!("ecs:read:{tenant}"),
            Self::Write => format!("ecs:write:{tenant}"),
            Self::Admin => format!("ecs:admin:{tenant}"),
            Self::Platform => "ecs:admin:platform".to_owned(),
            Self::Gateway => "ecs:gateway:platform".to_owned(),
            Self::Events => "ecs:events:platform".to_owned(),
        })
    }

    /// The word for programs when it is not allowed.
    pub const fn refusal(self) -> &'static str {
        match self {
            Self::Public => "scope.none",
            Self::Read => "scope.read",
            Self::Write => "scope.write",
            Self::Admin => "scope.admin",
            Self::Platform => "scope.platform",
            Self::Gateway => "scope.gateway",
            Self::Events => "scope.events",
        }
    }
}

fn allow(rows: &mut dyn Iterator<Item = &'static Endpoint>) -> String {
    let mut methods: Vec<&str> = Vec::new();
    for row in rows {
        methods.push(row.method.as_str());
        if row.method == Method::GET {
            methods.push(Method::HEAD.as_str());
        }
    }
    methods.join(", ")
}

/// Source: RFC 3986 section 2.1. A `%` without two hex digits stands for itself.
fn percent_decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return text.as_bytes().into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let decoded = match behind {
            [high, low, ..] if first == b'%' => hex_digit(*high).zip(hex_digit(*low)),
            _ => None,
        };
        match decoded {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &behind[2..];
            }
            None => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    bytes.into()
}

fn hex_digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}
