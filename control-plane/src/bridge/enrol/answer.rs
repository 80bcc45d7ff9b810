//! Reads the answer of `GetCallerIdentity`: exactly the elements of AWS's API reference, each once. A document type, and
//! with it every entity of its own, is refused by the parser.

use roxmltree::{Document, Node};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Whom STS names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) arn: String,
    pub(super) account: String,
}

/// `None` for anything that is not such an answer.
pub(super) fn read(body: &[u8]) -> Option<Caller> {
    let text = std::str::from_utf8(body).ok()?;
    // The defaults, by which no document type is allowed; and far fewer nodes than these bytes could make.
    let options = roxmltree::ParsingOptions { allow_dtd: false, nodes_limit: 64, ..Default::default() };
    let document = Document::parse_with_options(text, options).ok()?;
    let root = document.root_element();
    if !root.has_tag_name((NAMESPACE, "GetCallerIdentityResponse")) {
        return None;
    }
    let result = only(root, "GetCallerIdentityResult")?;
    Some(Caller { arn: value(result, "Arn")?, account: value(result, "Account")? })
}

/// The one child of this name. Two of them could be read in two ways.
fn only<'a, 'i>(parent: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    let mut found = parent.children().filter(|child| child.has_tag_name((NAMESPACE, name)));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Its text: one piece, without elements, comments or instructions in it.
fn value(parent: Node<'_, '_>, name: &'static str) -> Option<String> {
    let element = only(parent, name)?;
    let mut pieces = element.children();
    let piece = pieces.next().filter(Node::is_text)?;
    if pieces.next().is_some() {
        return None;
    }
    piece.text().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:sts::123456789012:assumed-role/east/i-1";

    fn answer(result: &str) -> String {
        format!(
            "<GetCallerIdentityResponse xmlns=\"{NAMESPACE}\">\n <GetCallerIdentityResult>{result}</GetCallerIdentityResult>\n \
             <ResponseMetadata><RequestId>0</RequestId></ResponseMetadata>\n</GetCallerIdentityResponse>"
        )
    }

    fn good() -> String {
        answer(&format!("<Arn>{ARN}</Arn><UserId>AROA:i-1</UserId><Account>123456789012</Account>"))
    }

    #[test]
    fn the_documented_answer_names_the_caller() {
        let caller = Caller { arn: ARN.to_owned(), account: "123456789012".to_owned() };
        assert_eq!(read(good().as_bytes()), Some(caller));
    }

    #[test]
    fn nothing_else_does() {
        let good = good();
        let bomb = format!("<!DOCTYPE a [<!ENTITY b \"x\"><!ENTITY c \"&b;&b;\">]>{good}");
        let entity = format!("<!DOCTYPE a [<!ENTITY arn \"{ARN}\">]>{}", good.replace(ARN, "&arn;"));
        for bad in [
            String::new(),
            "{}".to_owned(),
            good[..good.len() - 5].to_owned(),
            format!("{good}{good}"),
            good.replace(NAMESPACE, "https://example.org/"),
            good.replace("GetCallerIdentityResponse", "ErrorResponse"),
            good.replace("<Arn>", "<Arn><b/>"),
            good.replace(":assumed", "<!-- -->:assumed"),
            good.replace("<UserId>", "<Arn>arn:aws:sts::999999999999:assumed-role/a/b</Arn><UserId>"),
            good.replace("<Account>123456789012</Account>", ""),
            good.replace("<UserId>AROA:i-1</UserId>", &"<a/>".repeat(100)),
            answer("").replace("<ResponseMetadata>", &format!("<Arn>{ARN}</Arn><ResponseMetadata>")),
            bomb,
            entity,
        ] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(read(&[0xff, 0xfe]), None);
    }
}
