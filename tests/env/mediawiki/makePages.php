<?php
// Does what standard input says, one JSON object a line:
//   {"op":"save","title":"T","slots":{"main":{"model":"wikitext","text":"..."}}}    a new revision
//   {"op":"hide","title":"T"}      hides the text of the newest revision but one (the newest cannot be hidden)
//   {"op":"delete","title":"T"}    deletes the page
use MediaWiki\MediaWikiServices;
use MediaWiki\Revision\RevisionRecord;
use MediaWiki\Revision\RevisionStore;

require_once getenv( 'MW_INSTALL_PATH' ) . '/maintenance/Maintenance.php';

class MakePages extends Maintenance {
	public function execute() {
		$user = User::newSystemUser( 'Weir tester', [ 'steal' => true ] );
		$services = MediaWikiServices::getInstance();
		$done = 0;
		$this->beginTransaction( $this->getDB( DB_PRIMARY ), __METHOD__ );
		for ( ; ( $line = fgets( STDIN ) ) !== false; $done++ ) {
			$op = json_decode( $line, true, 64, JSON_THROW_ON_ERROR );
			$title = Title::newFromTextThrow( $op['title'] );
			$page = $services->getWikiPageFactory()->newFromTitle( $title );
			if ( $op['op'] === 'save' ) {
				$this->save( $page, $user, $op['slots'] );
			} elseif ( $op['op'] === 'hide' ) {
				$this->hide( $title );
			} elseif ( $op['op'] === 'delete' ) {
				$services->getDeletePageFactory()->newDeletePage( $page, $user )->forceImmediate( true )->deleteUnsafe( 'test' );
			}
		}
		$this->commitTransaction( $this->getDB( DB_PRIMARY ), __METHOD__ );
		$this->output( "$done\n" );
	}

	private function save( $page, $user, array $slots ) {
		$updater = $page->newPageUpdater( $user );
		foreach ( $slots as $role => $slot ) {
			$updater->setContent( $role, ContentHandler::makeContent( $slot['text'], null, $slot['model'] ) );
		}
		$updater->saveRevision( CommentStoreComment::newUnsavedComment( 'test' ), EDIT_SUPPRESS_RC );
		if ( !$updater->wasSuccessful() ) {
			$this->fatalError( $page->getTitle() . ': ' . $updater->getStatus() );
		}
	}

	private function hide( Title $title ) {
		$store = MediaWikiServices::getInstance()->getRevisionStore();
		$newest = $store->getRevisionByTitle( $title, 0, RevisionStore::READ_LATEST );
		$hidden = $newest ? $store->getPreviousRevision( $newest ) : null;
		if ( !$hidden ) {
			$this->fatalError( "$title: no older revision to hide" );
		}
		$this->getDB( DB_PRIMARY )->update( 'revision', [ 'rev_deleted' => RevisionRecord::DELETED_TEXT ],
			[ 'rev_id' => $hidden->getId() ], __METHOD__ );
	}
}
$maintClass = MakePages::class;
require_once RUN_MAINTENANCE_IF_MAIN;
