//! The shipped bootstrap as a tree: replaced values and the changes that a scenario makes.

use crate::{Fault, Result, fault::Doing as _, tools};
use serde_norway::Value;
use std::net::SocketAddr;

/// The YAML of a bootstrap, as a tree.
#[derive(Clone)]
pub struct Bootstrap {
    tree: Value,
}

impl Bootstrap {
    /// `envoy/bootstrap.yaml`.
    ///
    /// # Errors
    /// If it is no YAML.
    pub fn on_demand() -> Result<Self> {
        Self::read("bootstrap.yaml")
    }

    /// `envoy/bootstrap-named.yaml`.
    ///
    /// # Errors
    /// If it is no YAML.
    pub fn named() -> Result<Self> {
        Self::read("bootstrap-named.yaml")
    }

    fn read(name: &str) -> Result<Self> {
        let path = tools::root().join("envoy").join(name);
        let text = std::fs::read_to_string(&path).doing(path.display())?;
        Ok(Self { tree: serde_norway::from_str(&text).doing(path.display())? })
    }

    /// Replaces every scalar that is exactly `literal`.
    ///
    /// # Errors
    /// If there is none any more: the shipped file and its documentation have moved apart.
    pub fn replace(&mut self, literal: impl Into<Value>, with: impl Into<Value>) -> Result<()> {
        let (literal, with) = (literal.into(), with.into());
        match replace(&mut self.tree, &literal, &with) {
            0 => Err(Fault::new(format!("the bootstrap no longer holds the documented value {literal:?}"))),
            _ => Ok(()),
        }
    }

    /// The node at a path of keys and indices, such as `static_resources.clusters.0.name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn at(&mut self, path: &str) -> Result<&mut Value> {
        at(&mut self.tree, path)
    }

    /// A cluster by its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn cluster(&mut self, name: &str) -> Result<&mut Value> {
        let clusters = list(self.at("static_resources.clusters")?)?;
        let named = |cluster: &&mut Value| cluster["name"].as_str() == Some(name);
        clusters.iter_mut().find(named).ok_or_else(|| Fault::new(format!("no cluster {name}")))
    }

    /// Adds a cluster that is like `payments` but for its name and its address.
    ///
    /// # Errors
    /// If the tree is not as it was.
    pub fn add_cluster(&mut self, name: &str, address: SocketAddr) -> Result<()> {
        let mut cluster = self.cluster("payments")?.clone();
        for part in ["", "ca/", "named/"] {
            replace(&mut cluster, &format!("{part}payments").into(), &format!("{part}{name}").into());
        }
        set_address(&mut cluster, address)?;
        list(self.at("static_resources.clusters")?)?.push(cluster);
        Ok(())
    }

    /// Points a cluster somewhere.
    ///
    /// # Errors
    /// If the tree is not as it was.
    pub fn point(&mut self, cluster: &str, address: SocketAddr) -> Result<()> {
        set_address(self.cluster(cluster)?, address)
    }

    /// Puts a route in front of the others.
    ///
    /// # Errors
    /// If the tree is not as it was, or `route` is no YAML.
    pub fn add_route(&mut self, route: &str) -> Result<()> {
        let route = serde_norway::from_str(route)?;
        list(at(self.connection_manager()?, "route_config.virtual_hosts.0.routes")?)?.insert(0, route);
        Ok(())
    }

    /// The HTTP filters, in order.
    ///
    /// # Errors
    /// If the tree is not as it was.
    pub fn http_filters(&mut self) -> Result<&mut Vec<Value>> {
        list(at(self.connection_manager()?, "http_filters")?)
    }

    /// Puts a filter directly in front of the one called `name`.
    ///
    /// # Errors
    /// If there is no such filter, or `filter` is no YAML.
    pub fn insert_before(&mut self, name: &str, filter: &str) -> Result<()> {
        let filter = serde_norway::from_str(filter)?;
        let filters = self.http_filters()?;
        let place = filters.iter().position(|filter| filter["name"].as_str() == Some(name));
        let place = place.ok_or_else(|| Fault::new(format!("no filter {name}")))?;
        filters.insert(place, filter);
        Ok(())
    }

    /// A filter by its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn http_filter(&mut self, name: &str) -> Result<&mut Value> {
        let filters = self.http_filters()?;
        let named = |filter: &&mut Value| filter["name"].as_str() == Some(name);
        filters.iter_mut().find(named).ok_or_else(|| Fault::new(format!("no filter {name}")))
    }

    /// The listener's HTTP connection manager.
    ///
    /// # Errors
    /// If the tree is not as it was.
    pub fn connection_manager(&mut self) -> Result<&mut Value> {
        self.at("static_resources.listeners.0.filter_chains.0.filters.0.typed_config")
    }

    /// The YAML.
    ///
    /// # Errors
    /// If it can't be written as YAML.
    pub fn to_yaml(&self) -> Result<String> {
        Ok(serde_norway::to_string(&self.tree)?)
    }
}

fn replace(node: &mut Value, literal: &Value, with: &Value) -> usize {
    if node == literal {
        *node = with.clone();
        return 1;
    }
    match node {
        Value::Sequence(items) => items.iter_mut().map(|item| replace(item, literal, with)).sum(),
        Value::Mapping(entries) => entries.iter_mut().map(|(_, item)| replace(item, literal, with)).sum(),
        _ => 0,
    }
}

/// The node below `node` at a path of keys and indices.
///
/// # Errors
/// If there is none.
pub fn at<'a>(node: &'a mut Value, path: &str) -> Result<&'a mut Value> {
    path.split('.').try_fold(node, |node, step| {
        let next = match step.parse::<usize>() {
            Ok(index) => node.get_mut(index),
            Err(_) => node.get_mut(step),
        };
        next.ok_or_else(|| Fault::new(format!("the bootstrap has no {step} in {path}")))
    })
}

fn list(node: &mut Value) -> Result<&mut Vec<Value>> {
    node.as_sequence_mut().ok_or_else(|| Fault::new("not a list in the bootstrap"))
}

fn set_address(cluster: &mut Value, address: SocketAddr) -> Result<()> {
    let place = "load_assignment.endpoints.0.lb_endpoints.0.endpoint.address.socket_address";
    let socket = at(cluster, place)?;
    socket["address"] = address.ip().to_string().into();
    socket["port_value"] = address.port().into();
    Ok(())
}
