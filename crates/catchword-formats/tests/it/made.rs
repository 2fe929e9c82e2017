//! EPUBs made of a few entries.

use std::io::{Cursor, Write};

use catchword_formats::{BookFile, RefusedFile};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

pub(crate) const CONTAINER: &str = r#"<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">
  <rootfiles><rootfile full-path="OPS/package.opf" media-type="application/oebps-package+xml"/></rootfiles>
</container>"#;

pub(crate) const PACKAGE: &str = r#"<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">
  <metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
    <dc:identifier id="id">urn:x</dc:identifier><dc:title>A Book</dc:title><dc:language>en</dc:language>
  </metadata>
  <manifest>
    <item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>
    <item id="b" href="b.xhtml" media-type="application/xhtml+xml"/>
    <item id="cover" href="cover.svg" media-type="image/svg+xml" properties="cover-image"/>
  </manifest>
  <spine><itemref idref="a"/><itemref idref="b"/></spine>
</package>"#;

/// The entries of an EPUB under construction, in order.
#[derive(Clone)]
pub(crate) struct Entries(Vec<(String, Vec<u8>)>);

impl Entries {
    /// A small EPUB with two chapters and a cover, without fault.
    pub(crate) fn good() -> Self {
        Self(Vec::new())
            .with("mimetype", "application/epub+zip")
            .with("META-INF/container.xml", CONTAINER)
            .with("OPS/package.opf", PACKAGE)
            .with("OPS/a.xhtml", "<html>first</html>")
            .with("OPS/b.xhtml", "<html>second</html>")
            .with("OPS/cover.svg", "<svg/>")
    }

    /// Adds an entry, or replaces the one of that name.
    pub(crate) fn with(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref().to_vec();
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = content,
            None => self.0.push((name.to_owned(), content)),
        }
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.0.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn pack(&self) -> Vec<u8> {
        self.pack_as(CompressionMethod::Deflated)
    }

    pub(crate) fn pack_as(&self, method: CompressionMethod) -> Vec<u8> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in &self.0 {
            let options = SimpleFileOptions::default().compression_method(method);
            archive.start_file(name.as_str(), options).unwrap();
            archive.write_all(content).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    pub(crate) fn read(&self) -> Result<BookFile, RefusedFile> {
        read(self.pack())
    }
}

pub(crate) fn read(bytes: Vec<u8>) -> Result<BookFile, RefusedFile> {
    catchword_formats::read(Cursor::new(bytes))
}
